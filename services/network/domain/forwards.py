"""Forwards of an instance as nftables rules. Pure; the checks are here, since the rules are text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from core.errors import Invalid

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PREFIX = "podium_forward_"
_MOST = 4096


@dataclass(frozen=True)
class Forward:
    """What arrives at *listen* goes to *connect*: pairs of ports, or the same port for all."""

    protocol: str
    listen: IPv4Address | IPv6Address
    connect: IPv4Address | IPv6Address
    ports: tuple[tuple[int, int], ...]


def checked(
    protocol: str, listen: str, listen_ports: Iterable[int], connect: str, connect_ports: Iterable[int]
) -> Forward:
    """Raises: Invalid."""
    sources, targets = list(listen_ports), list(connect_ports)
    if len(targets) == 1:
        targets *= len(sources)
    try:
        found = Forward(
            protocol, ip_address(listen), ip_address(connect), tuple(zip(sources, targets, strict=True))
        )
    except ValueError as exc:
        raise Invalid("BAD_FORWARD", f"A forward cannot be understood: {exc}") from None
    # A zone (fe80::1%x) is text that anybody chose.
    is_plain = "%" not in listen + connect and found.listen.version == found.connect.version
    are_ports = all(0 < port < 1 << 16 for pair in found.ports for port in pair)
    if protocol not in ("tcp", "udp") or not is_plain or not are_ports or not 0 < len(sources) <= _MOST:
        raise Invalid("BAD_FORWARD", "A forward needs tcp or udp, two addresses of a family, and ports")
    return found


def table_of(instance_id: str) -> str:
    """Return the name of the nft table of an instance. Raises: Invalid."""
    if not _ID.fullmatch(instance_id):
        raise Invalid("BAD_ID", f"{instance_id[:64]!r} is no id of an instance", about=instance_id[:64])
    return _PREFIX + instance_id.replace("-", "_")


def instance_of(table: str) -> str | None:
    """Return whose table it is; None when it is none of forwards."""
    found = table.removeprefix(_PREFIX).replace("_", "-")
    return found if table.startswith(_PREFIX) and _ID.fullmatch(found) else None


def render_removal(instance_id: str) -> str:
    """Return a script that removes the table, whether there is one or not."""
    table = f"inet {table_of(instance_id)}"
    return f"add table {table}\ndelete table {table}\n"


def render(instance_id: str, forwards: Iterable[Forward]) -> str:
    """Return a script that replaces the table in one transaction.

    What the host itself sends is translated too. What the instance sends to the host's address comes back
    to it from the host's, or it would not know the answer.
    """
    rules = [_rule(forward, *pair) for forward in forwards for pair in forward.ports]
    loops = sorted({_loop(forward, target) for forward in forwards for _, target in forward.ports})
    if not rules:
        return render_removal(instance_id)
    lines = [f"table inet {table_of(instance_id)} {{"]
    lines += _chain("pre", "type nat hook prerouting priority dstnat; policy accept;", rules)
    lines += _chain("here", "type nat hook output priority -100; policy accept;", rules)
    lines += _chain("post", "type nat hook postrouting priority srcnat; policy accept;", loops)
    return render_removal(instance_id) + "\n".join([*lines, "}"]) + "\n"


def _rule(forward: Forward, source: int, target: int) -> str:
    ip = _family(forward)
    to = f"[{forward.connect}]:{target}" if ip == "ip6" else f"{forward.connect}:{target}"
    return f"{ip} daddr {forward.listen} {forward.protocol} dport {source} dnat {ip} to {to}"


def _loop(forward: Forward, target: int) -> str:
    ip, own = _family(forward), forward.connect
    return f"{ip} saddr {own} {ip} daddr {own} {forward.protocol} dport {target} masquerade"


def _family(forward: Forward) -> str:
    return "ip6" if forward.listen.version == 6 else "ip"


def _chain(name: str, head: str, rules: list[str]) -> list[str]:
    return [f" chain {name} {{", f"  {head}", *(f"  {rule}" for rule in rules), " }"]
