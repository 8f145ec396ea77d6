"""proxy: a listening socket on one side, handed to a process that connects on the other."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from core.configkeys.devices.proxy import INSTANCE_SIDE, parse_address
from core.units import parse_bool
from services.runtime.domain.devices.plan import (
    DevicePlan,
    End,
    Facts,
    Forward,
    Options,
    Translation,
    cannot_start,
)


def is_nat(options: Options) -> bool:
    return parse_bool(options.get("nat") or "false")


def plan_nat(device: str, options: Options, devices: Mapping[str, Options]) -> DevicePlan:
    """The target must be an address that is the instance's own, or it could take others' traffic."""
    listen, connect = parse_address(options["listen"]), parse_address(options["connect"])
    version = listen.ip.version
    own = [nic.get(f"ipv{version}.address") for nic in devices.values() if nic["type"] == "nic"]
    static = [address for address in own if address and address != "none"]
    if connect.ip.is_unspecified and not static:
        why = f"Instance has no static IPv{version} address assigned to be used as the connect IP"
        raise cannot_start(device, why)
    target = static[0] if connect.ip.is_unspecified else connect.host
    if not any(ip_address(address) == ip_address(target) for address in static):
        why = f'Connect IP "{connect.host}" must be one of the instance\'s static IPv{version} addresses'
        raise cannot_start(device, why)
    translation = Translation(listen.protocol, listen.host, listen.ports, target, connect.ports)
    return DevicePlan(device, translation=translation)


def plan(device: str, options: Options, facts: Facts) -> DevicePlan:
    """A process takes the connections. In NAT mode, which is plan_nat's, the kernel does."""
    is_inside = options.get("bind", "host") in INSTANCE_SIDE
    listen = _end(options, "listen", "", is_inside=is_inside)
    connect = _end(options, "connect", "security.", is_inside=not is_inside)
    header = parse_bool(options.get("proxy_protocol") or "false")
    return DevicePlan(device, forward=Forward(listen, connect, header))


def _end(options: Options, side: str, prefix: str, *, is_inside: bool) -> End:
    address = parse_address(options[side])
    return End(
        address.protocol,
        address.host,
        address.ports,
        is_inside,
        int(options.get(f"{prefix}uid") or 0),
        int(options.get(f"{prefix}gid") or 0),
        int(options.get("mode") or "0644", 8),
    )
