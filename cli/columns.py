"""The columns of `podium list`: letters and names, and how each is filled from an instance. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cli.failure import UsageError
from cli.texts import binary_size, short_time

Instance = dict[str, Any]
DEFAULT, FAST = "ns46tS", "nsacPt"


class Column(NamedTuple):
    """needs_state: only the answer with the states of the instances can fill it."""

    title: str
    fill: Callable[[Instance], str]
    needs_state: bool = False


def _state(instance: Instance) -> dict[str, Any]:
    return instance.get("state") or {}


def _is_active(instance: Instance) -> bool:
    return instance["status_code"] in (103, 110)


def _addresses(instance: Instance, family: str) -> str:
    """Return "address (link)" lines, of what is neither local nor link-wide."""
    if not _is_active(instance):
        return ""
    found = [
        f"{address['address']} ({name})"
        for name, network in sorted((_state(instance).get("network") or {}).items())
        for address in network["addresses"]
        if address["family"] == family and address["scope"] not in ("link", "local")
    ]
    return "\n".join(sorted(found, reverse=True))


def _kind(instance: Instance) -> str:
    kind = "VIRTUAL-MACHINE" if instance["type"] == "virtual-machine" else "CONTAINER"
    return f"{kind} (EPHEMERAL)" if instance["ephemeral"] else kind


def _pool(instance: Instance) -> str:
    devices = instance["expanded_devices"].values()
    return next(
        (str(d.get("pool", "")) for d in devices if d.get("type") == "disk" and d.get("path") == "/"), ""
    )


def _base(instance: Instance) -> str:
    return str(instance["config"].get("volatile.base_image", ""))


def _disk(instance: Instance) -> str:
    usage = ((_state(instance).get("disk") or {}).get("root") or {}).get("usage", 0)
    return binary_size(usage) if usage else ""


def _memory(instance: Instance) -> str:
    usage = (_state(instance).get("memory") or {}).get("usage", 0)
    return binary_size(usage) if _is_active(instance) and usage > 0 else ""


def _memory_share(instance: Instance) -> str:
    memory = _state(instance).get("memory") or {}
    if not _is_active(instance) or not memory.get("usage") or not memory.get("total"):
        return ""
    return f"{memory['usage'] / memory['total'] * 100:.1f}%"


def _pid(instance: Instance) -> str:
    pid = _state(instance).get("pid", 0)
    return str(pid) if _is_active(instance) and pid else ""


def _processes(instance: Instance) -> str:
    return str(_state(instance).get("processes", 0)) if _is_active(instance) else ""


def _cpu(instance: Instance) -> str:
    usage = (_state(instance).get("cpu") or {}).get("usage", 0)
    return f"{usage // 1_000_000_000}s" if _is_active(instance) and usage else ""


COLUMNS: dict[str, Column] = {
    "4": Column("IPV4", lambda i: _addresses(i, "inet"), True),
    "6": Column("IPV6", lambda i: _addresses(i, "inet6"), True),
    "a": Column("ARCHITECTURE", lambda i: str(i["architecture"])),
    "b": Column("STORAGE POOL", _pool),
    "c": Column("CREATED AT", lambda i: short_time(i["created_at"])),
    "d": Column("DESCRIPTION", lambda i: str(i["description"])),
    "D": Column("DISK USAGE", _disk, True),
    "e": Column("PROJECT", lambda i: str(i.get("project") or "default")),
    "f": Column("BASE IMAGE", lambda i: _base(i)[:12]),
    "F": Column("BASE IMAGE", _base),
    "h": Column("HEALTH", lambda i: str(i["config"].get("volatile.health", "")).upper()),
    "l": Column("LAST USED AT", lambda i: short_time(i["last_used_at"])),
    "L": Column("LOCATION", lambda i: str(i.get("location", ""))),
    "m": Column("MEMORY USAGE", _memory, True),
    "M": Column("MEMORY USAGE%", _memory_share, True),
    "n": Column("NAME", lambda i: str(i["name"])),
    "N": Column("PROCESSES", _processes, True),
    "p": Column("PID", _pid, True),
    "P": Column("PROFILES", lambda i: "\n".join(i["profiles"] or [])),
    "r": Column("RESTARTS", lambda i: str(i["config"].get("volatile.restarts", ""))),
    "s": Column("STATE", lambda i: str(i["status"]).upper()),
    "S": Column("SNAPSHOTS", lambda i: str(len(i.get("snapshots") or [])), True),
    "t": Column("TYPE", _kind),
    "u": Column("CPU USAGE", _cpu, True),
}
NAMES = {
    "ipv4": "4", "ipv6": "6", "architecture": "a", "arch": "a", "pool": "b", "created": "c",
    "description": "d", "disk": "D", "project": "e", "image": "f", "fingerprint": "F", "used": "l",
    "location": "L", "memory": "m", "memory%": "M", "name": "n", "processes": "N", "pid": "p",
    "profiles": "P", "state": "s", "status": "s", "snapshots": "S", "type": "t", "cpu": "u",
    "health": "h", "restarts": "r",
}  # fmt: skip


def parse(text: str) -> list[Column]:
    """Return the columns that "ns46,user.role:ROLE:8" or "name,state" asks for. Raises: UsageError."""
    found: list[Column] = []
    for part in text.split(","):
        if not part:
            raise _bad(f"there is an empty column in {text!r}", "commas part columns")
        if part.lower() in NAMES:
            found.append(COLUMNS[NAMES[part.lower()]])
        elif "." in part or ":" in part:
            found.append(_custom(part))
        else:
            found += [_letter(letter, text) for letter in part]
    return found


def _letter(letter: str, text: str) -> Column:
    if letter == "L":
        raise _bad("column L cannot be shown", "there is one member; locations are for clusters")
    if letter not in COLUMNS:
        raise _bad(f"there is no column {letter!r} (in {text!r})", f"names are {', '.join(NAMES)}")
    return COLUMNS[letter]


def _bad(what: str, why: str) -> UsageError:
    return UsageError(what, why, "list")


def _custom(text: str) -> Column:
    """Read "[config:|devices:]KEY[:TITLE[:WIDTH]]"."""
    parts = text.split(":")
    place = parts.pop(0) if parts[0] in ("config", "devices") else "config"
    key = parts[0] if parts else ""
    if not key or len(parts) > 3:
        raise _bad(f"column {text!r} is not understood", "it must read [config:|devices:]KEY[:TITLE[:WIDTH]]")
    title = parts[1] if len(parts) > 1 and parts[1] else _title(key)
    width = _width(parts[2], title) if len(parts) > 2 else -1
    return Column(title, lambda i: _cut(_look_up(i, place, key), width))


def _title(key: str) -> str:
    return " ".join(key.upper().split("."))


def _width(text: str, title: str) -> int:
    """Return the most letters: -1 for no limit; 0 asks for the size of the title."""
    try:
        width = int(text)
    except ValueError:
        raise _bad(f"{text!r} is no width", "a width is a whole number") from None
    if width < -1:
        raise _bad(f"{text!r} is no width", "it must be -1, 0 or more")
    return len(title) if width == 0 else width


def _cut(text: str, width: int) -> str:
    return text if width < 0 else text[:width]


def _look_up(instance: Instance, place: str, key: str) -> str:
    if place == "config":
        return str((instance.get("expanded_config") or {}).get(key, ""))
    device, _, option = key.partition(".")
    return str(((instance.get("expanded_devices") or {}).get(device) or {}).get(option, ""))
