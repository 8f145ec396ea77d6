"""What a type of device is: a table of options, and the rules between them.

Sentences are those of LXD 5.0 (internal/server/device, shared/validate), which clients show as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from core.configkeys.schema import text
from core.units import parse_bool

Options = Mapping[str, str]
OptionCheck = Callable[[str], None]
_MAX_VALUE = 4096


def _no_rules(options: Options) -> None:
    return None


@dataclass(frozen=True)
class DeviceType:
    """options: how each is checked when it is set. required: must be set. rules: raise ValueError.

    loads: raises ValueError when it is not even known what kind of device this is.
    """

    name: str
    options: Mapping[str, OptionCheck] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    rules: Callable[[Options], None] = _no_rules
    loads: Callable[[Options], None] = _no_rules
    free: tuple[str, ...] = ("user.",)

    def check(self, options: Options) -> None:
        """Raises: ValueError with LXD's sentence."""
        for name in self.required:
            if not options.get(name):
                raise ValueError(f'Invalid value for device option "{name}": Required value')
        for name, value in options.items():
            if name == "type":
                continue
            _check_option(name, value, self._find(name))
        self.rules(options)

    def find(self, name: str) -> OptionCheck | None:
        """Return the check of an option; None when there is no such option."""
        if name in self.options:
            return self.options[name]
        return anything if name.startswith(self.free) else None

    def _find(self, name: str) -> OptionCheck:
        if found := self.find(name):
            return found
        raise ValueError(f'Invalid device option "{name[:64]}"')


def _check_option(name: str, value: str, check: OptionCheck) -> None:
    try:
        if len(value) > _MAX_VALUE:
            raise ValueError(f"it is longer than {_MAX_VALUE} characters")
        text(value)  # it may become part of a generated line
        if value:
            check(value)
    except ValueError as exc:
        raise ValueError(f'Invalid value for device option "{name}": {exc}') from None


# --- values ------------------------------------------------------------------------------------------


def anything(value: str) -> None:
    """Any line of text."""


def boolean(value: str) -> None:
    try:
        parse_bool(value)
    except ValueError:
        raise ValueError(f'Invalid value for a boolean "{value[:64]}"') from None


def one_of(*choices: str) -> OptionCheck:
    def check(value: str) -> None:
        if value not in choices:
            raise ValueError(f'Invalid value "{value[:64]}" (not one of [{" ".join(choices)}])')

    return check


def integer(value: str) -> None:
    if not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise ValueError(f'Invalid value for an integer "{value[:64]}"')


def device_number(value: str) -> None:
    if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) >= 1 << 32:
        raise ValueError("Invalid value for a UNIX device number")


def user_id(value: str) -> None:
    if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) >= 1 << 32:
        raise ValueError("Invalid value for a UNIX ID")


def file_mode(value: str) -> None:
    if not re.fullmatch(r"[0-7]{1,4}", value):
        raise ValueError("Invalid value for an octal file mode")


def hex_id(value: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{4}", value):
        raise ValueError("Invalid value, must be four lower case hex characters")


def pci_address(value: str) -> None:
    if not re.fullmatch(r"([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-9a-fA-F]", value):
        raise ValueError("Invalid PCI address")


def plain_path(value: str) -> None:
    """A path whose parts name something: no .. leads out of where it is to lie."""
    if ".." in value.split("/"):
        raise ValueError(f"The path {value[:64]!r} must not contain ..")


OWNER: Mapping[str, OptionCheck] = {"uid": user_id, "gid": user_id, "mode": file_mode}
