"""proxy: a listening socket on one side, handed to a process that connects on the other."""

from __future__ import annotations

from core.configkeys.devices.proxy import INSTANCE_SIDE, parse_address
from core.units import parse_bool
from services.runtime.domain.devices.plan import DevicePlan, End, Facts, Forward, Options, cannot_start


def plan(device: str, options: Options, facts: Facts) -> DevicePlan:
    """In NAT mode the network service does the work, and there is no process."""
    if parse_bool(options.get("nat") or "false"):
        raise cannot_start(device, "NAT mode is not available in this version")
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
