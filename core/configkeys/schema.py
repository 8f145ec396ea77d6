"""What a key is, and the check of a whole configuration against a table of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.errors import Invalid

Parser = Callable[[str], object]
_MAX_VALUE = 256 * 1024


def text(value: str) -> str:
    """One line of printable text."""
    if any(ord(c) < 32 or c in "\x7f\x85\u2028\u2029" for c in value):
        raise ValueError("it must not contain line breaks or control characters")
    return value


def lines(value: str) -> str:
    """Text of several lines; it never reaches a generated file as it is."""
    if "\0" in value:
        raise ValueError("it must not contain NUL")
    return value


def _check_name(name: str) -> None:
    """Names of these families become paths and lines, so they hold no more than they need."""
    text(name)
    strict = name.startswith(("linux.sysctl.", "limits.kernel."))
    if strict and (".." in name or not re.fullmatch(r"[A-Za-z0-9._-]+", name)):
        raise ValueError("its name may hold letters, digits, '.', '_' and '-' only")
    if name.startswith("environment.") and "=" in name:
        raise ValueError("its name must not hold '='")


def one_of(*choices: str) -> Parser:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return parse


@dataclass(frozen=True)
class ConfigKey:
    """One key. live: a change reaches running instances at once. refused: why it is not supported."""

    name: str
    parse: Parser = text
    doc: str = ""
    default: str = ""
    live: bool = False
    refused: str = ""


class Schema:
    """A table of keys, families such as "user." whose members are free, and refused ones with the reason."""

    def __init__(
        self,
        what: str,
        keys: tuple[ConfigKey, ...],
        families: Mapping[str, Parser],
        refused_families: Mapping[str, str] | None = None,
    ) -> None:
        self.what = what
        self.keys = {key.name: key for key in keys}
        self.families = families
        self.refused_families = refused_families or {}

    def find(self, name: str) -> ConfigKey | None:
        if name in self.keys:
            return self.keys[name]
        for prefix, parse in self.families.items():
            if name.startswith(prefix) and len(name) > len(prefix):
                return ConfigKey(name, parse, live=True)
        for prefix, why in self.refused_families.items():
            if name.startswith(prefix):
                return ConfigKey(name, refused=why)
        return None

    def check(self, config: Mapping[str, str]) -> None:
        """Raises: Invalid UNKNOWN_KEY, KEY_REFUSED or BAD_VALUE, naming the key."""
        for name, value in config.items():
            self._check_one(name, value)

    def _check_one(self, name: str, value: str) -> None:
        key = self.find(name)
        if key is None:
            shown = name[:80]
            raise Invalid("UNKNOWN_KEY", f"Unknown configuration key: {shown!r} ({self.what})", about=shown)
        if key.refused:
            raise Invalid("KEY_REFUSED", f"{name} is not supported: {key.refused}", about=name)
        if len(value) > _MAX_VALUE:
            raise Invalid("VALUE_TOO_LONG", f"The value of {name} is longer than 256 KiB", about=name)
        try:
            _check_name(name)
            key.parse(value)
        except ValueError as exc:
            raise Invalid("BAD_VALUE", f"Invalid value for {name}: {exc}", about=name) from None

    def get(self, config: Mapping[str, str], name: str) -> str:
        """Return the value of a key, or its default."""
        return config.get(name) or self.keys[name].default


def without_empty(config: Mapping[str, str]) -> dict[str, str]:
    """Drop keys with an empty value: that is how clients unset a key."""
    return {name: value for name, value in config.items() if value != ""}
