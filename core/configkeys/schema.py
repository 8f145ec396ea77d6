"""What a key is, and the check of a whole configuration against a table of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

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
    """Names of families become paths and lines, so they hold no more than they need."""
    text(name)
    strict = name.startswith(("linux.sysctl.", "limits.kernel."))
    if strict and (".." in name or not re.fullmatch(r"[A-Za-z0-9._/-]+", name)):
        raise ValueError("its name may hold letters, digits, '.', '_' and '-' only")
    if name.startswith("environment.") and not re.fullmatch(r"environment\.[A-Za-z0-9_.@-]{1,128}", name):
        raise ValueError(f"Invalid environment variable name {name[12:76]!r}")


def one_of(*choices: str) -> Parser:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f'Invalid value "{value[:64]}" (not one of [{" ".join(choices)}])')
        return value

    return parse


@dataclass(frozen=True)
class ConfigKey:
    """One key. live: a change reaches running instances at once. refused: why it is not supported.

    applied says where the effect of a key can be read.
    """

    name: str
    parse: Parser = text
    doc: str = ""
    default: str = ""
    live: bool = False
    refused: str = ""
    applied: str = ""


def refusing(name: str, why: str, parse: Parser = text) -> ConfigKey:
    """Return a key that says first what is wrong with a value, as LXD does, and else why it is refused."""

    def refuse(value: str) -> object:
        parse(value)
        raise Invalid("KEY_REFUSED", f"{name} is not supported: {why}", about=name)

    return ConfigKey(name, refuse, why)


@dataclass(frozen=True)
class Family:
    """Keys that share a prefix and are otherwise free. check is given the rest of the name and the value."""

    check: Callable[[str, str], object]
    doc: str = ""
    live: bool = True
    applied: str = ""


@dataclass(frozen=True)
class Sentences:
    """How refusals are worded: with {what}, {name}, {value} and, for a bad one, {why}."""

    bad_value: str = "Invalid value for {name}: {why}"
    unknown: str = "Unknown configuration key: {name!r} ({what})"


class Schema:
    """A table of keys, families such as "user." whose members are free, and refused ones with the reason.

    aliases: older or other names of keys, which mean the same.
    """

    def __init__(
        self,
        what: str,
        keys: tuple[ConfigKey, ...],
        families: Mapping[str, Parser | Family],
        refused_families: Mapping[str, str] | None = None,
        *,
        aliases: Mapping[str, str] | None = None,
        sentences: Sentences | None = None,
    ) -> None:
        self.what = what
        self.keys = {key.name: key for key in keys}
        self.families = {prefix: _family(found) for prefix, found in families.items()}
        self.refused_families = refused_families or {}
        self.aliases = dict(aliases or {})
        self._sentences = sentences or Sentences()

    def find(self, name: str) -> ConfigKey | None:
        name = self.aliases.get(name, name)
        if name in self.keys:
            return self.keys[name]
        for prefix, family in self.families.items():
            if name.startswith(prefix) and len(name) > len(prefix):
                return ConfigKey(name, partial(family.check, name.removeprefix(prefix)), live=family.live)
        for prefix, why in self.refused_families.items():
            if name.startswith(prefix):
                return ConfigKey(name, refused=why)
        return None

    def check(self, config: Mapping[str, str], *, of: str = "") -> None:
        """Check all keys. *of*: whose they are, for sentences that name it instead of the kind.

        Raises: Invalid UNKNOWN_KEY, KEY_REFUSED or BAD_VALUE, naming the key.
        """
        for name, value in config.items():
            self._check_one(name, value, of or self.what)

    def check_known(self, config: Mapping[str, str], *, of: str = "") -> None:
        """Check the names alone, also of keys that are to be unset. Raises: Invalid UNKNOWN_KEY."""
        for name, value in config.items():
            if self.find(name) is None:
                raise self._unknown(name, value, of or self.what)

    def _check_one(self, name: str, value: str, what: str) -> None:
        key = self.find(name)
        if key is None:
            raise self._unknown(name, value, what)
        if key.refused:
            raise Invalid("KEY_REFUSED", f"{name} is not supported: {key.refused}", about=name)
        if len(value) > _MAX_VALUE:
            raise Invalid("VALUE_TOO_LONG", f"The value of {name} is longer than 256 KiB", about=name)
        try:
            _check_name(name)
            key.parse(value)
        except ValueError as exc:
            said = self._sentences.bad_value.format(what=what, name=name, value=value[:64], why=exc)
            raise Invalid("BAD_VALUE", said, about=name) from None

    def _unknown(self, name: str, value: str, what: str) -> Invalid:
        shown = "".join(c if c.isprintable() else "?" for c in name[:80])
        said = self._sentences.unknown.format(what=what, name=shown, value=value[:64])
        return Invalid("UNKNOWN_KEY", said, about=shown)

    def get(self, config: Mapping[str, str], name: str) -> str:
        """Return the value of a key by any of its names, or its default."""
        others = (old for old, new in self.aliases.items() if new == name)
        return next((config[n] for n in (name, *others) if config.get(n)), self.keys[name].default)


def _family(found: Parser | Family) -> Family:
    return found if isinstance(found, Family) else Family(lambda _, value: found(value))


def without_empty(config: Mapping[str, str]) -> dict[str, str]:
    """Drop keys with an empty value: that is how clients unset a key."""
    return {name: value for name, value in config.items() if value != ""}
