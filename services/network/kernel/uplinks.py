"""The interfaces by which this host reaches the world. Blocking, shortly."""

from __future__ import annotations

from pathlib import Path

_PROC, _SYS = Path("/proc/net"), Path("/sys/class/net")
# Source: include/uapi/linux/route.h, RTF_REJECT: a route that is there to refuse.
_REJECT = 0x200


def uplinks(proc: Path = _PROC, sys: Path = _SYS) -> set[str]:
    """Return the interfaces with a default route, and those below them: ports of a bridge, of a bond."""
    found = set[str]()
    waiting = _ipv4(proc / "route") | _ipv6(proc / "ipv6_route")
    while waiting:
        name = waiting.pop()
        found.add(name)
        below = {path.name.removeprefix("lower_") for path in (sys / name).glob("lower_*")}
        waiting |= below - found
    return found


def mtus() -> tuple[tuple[str, int], ...]:
    """Return the same interfaces with their MTUs."""
    found = ((name, _SYS / name / "mtu") for name in sorted(uplinks()))
    return tuple((name, int(path.read_text())) for name, path in found if path.exists())


def _ipv4(table: Path) -> set[str]:
    """Source: net/ipv4/fib_trie.c, fib_route_seq_show: name, destination, ..., flags (3), ..., mask (7)."""
    rows = (line.split() for line in _lines(table)[1:])
    return {r[0] for r in rows if int(r[1], 16) == int(r[7], 16) == 0 and not int(r[3], 16) & _REJECT}


def _ipv6(table: Path) -> set[str]:
    """Source: net/ipv6/route.c, rt6_info_route: destination, bits, ..., flags (8), name (9)."""
    rows = (line.split() for line in _lines(table))
    return {r[9] for r in rows if int(r[0], 16) == int(r[1], 16) == 0 and not int(r[8], 16) & _REJECT}


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text().splitlines()
    except OSError:  # a kernel without this protocol
        return []
