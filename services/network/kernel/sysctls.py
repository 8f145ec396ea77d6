"""Kernel settings that networks need, and those that tell what is wrong. Blocking, shortly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from core.logs import get_logger
from core.records import Network
from services.network.domain.addresses import subnets_of
from services.network.domain.conflicts import rp_filter
from services.network.domain.render import is_on

log = get_logger(__name__)
_SYS = Path("/proc/sys")
_IPV4, _IPV6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
_BRIDGED = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")
_NEIGHBOURS = {2: 8192, 3: 16384}
_WATCHED = (
    _IPV4,
    _IPV6,
    "net.ipv6.conf.all.disable_ipv6",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
)


def ensure_forwarding(network: Network) -> None:
    """Let the host forward what *network* routes. Looked at first; a refusal is logged."""
    subnets = subnets_of(network.config)
    if subnets.ipv4 and is_on(network, "ipv4.routing"):
        _ensure(_IPV4, "1")
    if subnets.ipv6 and is_on(network, "ipv6.routing") and _read(_IPV6) != "1":
        _keep_accepting_routers()
        _ensure(_IPV6, "1")


def ensure_neighbours() -> None:
    """Let the tables of neighbours hold what a few hundred guests know of each other: they are the host's.

    The kernel's 1024 entries, over all namespaces, are used up when 33 guests speak with each other.
    Source: Documentation/networking/ip-sysctl.rst, neigh/default/gc_thresh3.
    """
    for version in ("ipv4", "ipv6"):
        for number, least in _NEIGHBOURS.items():
            name = f"net.{version}.neigh.default.gc_thresh{number}"
            if (value := _read(name)).isdigit() and int(value) < least:
                _write(_path(name), str(least), name)


def ensure_bridged_seen() -> bool:
    """Let the IP firewall see what passes a bridge. False when the kernel cannot.

    Where it has no CONFIG_NF_CONNTRACK_BRIDGE there is no other way to tell answers from the rest.
    """
    for setting in _BRIDGED:
        if _read(setting):
            _ensure(setting, "1")
    return all(_read(setting) for setting in _BRIDGED)


def is_bridged_seen() -> bool:
    """Return whether the IP firewall sees what passes a bridge, of either family."""
    return any(_read(setting) == "1" for setting in _BRIDGED)


def ensure_routed(name: str, options: Mapping[str, str]) -> None:
    """Let the host forward through interface *name*, and answer there for what lies behind a routed NIC."""
    if name and options.get("ipv4.address"):
        _ensure_at("ipv4", name, "forwarding", "1")
        _ensure(_IPV4, "1")
    if name and options.get("ipv6.address"):
        if _read(_IPV6) != "1":
            _keep_accepting_routers()
            _ensure(_IPV6, "1")
        _ensure_at("ipv6", name, "forwarding", "1")
        _ensure_at("ipv6", name, "proxy_ndp", "1")


def _ensure_at(version: str, name: str, setting: str, value: str) -> None:
    """Names of interfaces may hold dots, so the path is not made of the setting's name."""
    path = _SYS / "net" / version / "conf" / name / setting
    if _value(path) not in ("", value):
        _write(path, value, f"net.{version}.conf.{name}.{setting}")


def _keep_accepting_routers() -> None:
    """A host that forwards ignores router advertisements, and would lose its own IPv6 route, unless told 2.

    Source: Documentation/networking/ip-sysctl.rst, accept_ra.
    """
    for folder in (_SYS / "net/ipv6/conf").glob("*"):
        name = f"net.ipv6.conf.{folder.name}.accept_ra"
        if folder.name not in ("all", "default") and _value(folder / "accept_ra") == "1":
            _write(folder / "accept_ra", "2", name)


def read(interfaces: Iterable[str] = ()) -> dict[str, str]:
    """Return the settings that conflicts are looked for in; those that this kernel lacks are left out."""
    found = {name: _read(name) for name in _WATCHED}
    for name in ("all", *interfaces):
        found[rp_filter(name)] = _value(_SYS / "net/ipv4/conf" / name / "rp_filter")
    return {name: value for name, value in found.items() if value}


def _ensure(name: str, value: str) -> None:
    if _read(name) != value:
        _write(_path(name), value, name)


def _path(name: str) -> Path:
    return _SYS / name.replace(".", "/")


def _read(name: str) -> str:
    return _value(_path(name))


def _value(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _write(path: Path, value: str, name: str) -> None:
    try:
        path.write_text(value)
    except OSError as exc:
        log.warning("setting_not_changed", setting=name, error=str(exc))
