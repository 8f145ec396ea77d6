"""Keys of networks that are an interface of the host with a name: macvlan, physical and sriov. Pure.

Source of tables and sentences: what LXD 5.0.2 answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface

from core.configkeys import netvalues, nic
from core.configkeys.network import items
from core.configkeys.nic import Parser
from core.errors import Invalid
from core.units import parse_bool

_TEXT: Parser = str


def _ips(value: str) -> object:
    return [nic.parse_ip(part) for part in items(value)]


def _gateway4(value: str) -> object:
    return IPv4Interface(value)


def _gateway6(value: str) -> object:
    if "%" in value:
        raise ValueError(f'Not an IPv6 address "{value[:64]}"')
    return IPv6Interface(value)


_PARENT: dict[str, Parser] = {"parent": netvalues.interface, "mtu": netvalues.mtu, "vlan": nic.vlan_id}
_GVRP: dict[str, Parser] = {"gvrp": parse_bool}
UPLINKS: dict[str, dict[str, Parser]] = {
    "macvlan": {**_PARENT, **_GVRP},
    "sriov": _PARENT,
    "physical": {
        **_PARENT,
        **_GVRP,
        "dns.nameservers": _ips,
        "ipv4.gateway": _gateway4,
        "ipv6.gateway": _gateway6,
    },
}


def check(name: str, type: str, config: Mapping[str, str]) -> None:
    """Raises: Invalid."""
    if not config.get("parent"):
        raise _bad(f'Invalid value for network "{name}" option "parent": Required value', "parent")
    check_known(name, type, config)
    for key, value in config.items():
        try:
            UPLINKS[type].get(key, _TEXT)(value)
        except ValueError as exc:
            raise _bad(f'Invalid value for network "{name}" option "{key}": {exc}', key) from None


def check_known(name: str, type: str, config: Mapping[str, str]) -> None:
    """Check the names alone, also of keys that are to be unset. Raises: Invalid."""
    for key in config:
        if key not in UPLINKS[type] and not key.startswith("user."):
            raise _bad(f'Invalid option for network "{name}" option "{key[:64]}"', key[:64])


def _bad(why: str, about: str) -> Invalid:
    return Invalid("BAD_VALUE", why, about=about)
