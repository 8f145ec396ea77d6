"""Tunnels of bridges: tunnel.NAME.KEY, by GRE or VXLAN to what is no member. Pure.

Which keys there are and what they are when unset: LXD's documentation of bridge networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from core.configkeys import netvalues
from core.configkeys.schema import Parser, one_of
from core.errors import Invalid

_PREFIX = "tunnel."
_NAME = re.compile(r"[A-Za-z0-9_-]{1,12}")
# The kernel's, less one for the dash between the names of network and tunnel.
_LONGEST = 14
MTU = "1400"


def _number(least: int, most: int) -> Parser:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise ValueError(f"{value[:32]!r} is not a number from {least} to {most}")
        return int(value)

    return parse


def _address(value: str) -> object:
    if "%" in value:
        raise ValueError(f'Not an IP address "{value[:64]}"')
    return ip_address(value)


KEYS: dict[str, Parser] = {
    "protocol": one_of("gre", "vxlan"),
    "local": _address,
    "remote": _address,
    "group": _address,
    "port": _number(0, 65535),
    "id": _number(0, (1 << 24) - 1),
    "interface": netvalues.interface,
    "ttl": _number(0, 255),
}


@dataclass(frozen=True)
class Tunnel:
    """device: its name on the host. remote: a group, if is_group. interface: "" for that of the way out."""

    device: str
    protocol: str
    local: str = ""
    remote: str = ""
    is_group: bool = False
    interface: str = ""
    port: int = 0
    id: int = 1
    ttl: int = 1


def check_key(rest: str, value: str) -> object:
    """Check one key by what follows "tunnel.". Raises: ValueError."""
    name, dot, key = rest.rpartition(".")
    if not dot or not _NAME.fullmatch(name) or key not in KEYS:
        raise ValueError("tunnel.NAME.KEY takes protocol, local, remote, group, port, id, interface and ttl")
    return KEYS[key](value)


def check_names(network: str, config: Mapping[str, str]) -> None:
    """Refuse names that with the network's are none of an interface. Raises: Invalid."""
    for name in _named(config):
        if len(network) + len(name) > _LONGEST:
            said = f"Network name too long for tunnel interface: {network}-{name}"
            raise Invalid("BAD_VALUE", said, about=f"{_PREFIX}{name}.protocol")


def tunnels_of(network: str, config: Mapping[str, str]) -> tuple[Tunnel, ...]:
    """Return those that are complete: one may be configured a key at a time."""
    found = (_tunnel(f"{network}-{name}", keys) for name, keys in sorted(_named(config).items()))
    return tuple(tunnel for tunnel in found if tunnel)


def _named(config: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for key, value in config.items():
        if key.startswith(_PREFIX) and value:
            name, _, last = key.removeprefix(_PREFIX).rpartition(".")
            found.setdefault(name, {})[last] = value
    return found


def _tunnel(device: str, keys: Mapping[str, str]) -> Tunnel | None:
    local, remote = keys.get("local", ""), keys.get("remote", "")
    if keys.get("protocol") == "gre":
        return Tunnel(device, "gre", local, remote) if local and remote else None
    if keys.get("protocol") != "vxlan" or (remote and not local):
        return None
    return Tunnel(
        device,
        "vxlan",
        local,
        remote or keys.get("group", "239.0.0.1"),
        is_group=not remote,
        interface=keys.get("interface", ""),
        port=int(keys.get("port", "0")),
        id=int(keys.get("id", "1")),
        ttl=int(keys.get("ttl", "1")),
    )
