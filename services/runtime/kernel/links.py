"""What the host says of its own interfaces. Cheap: one file each."""

from __future__ import annotations

from pathlib import Path

_SYS = Path("/sys/class/net")


def mtu(name: str) -> int:
    """Return 0 when there is no such interface."""
    return int(_read(name, "mtu") or 0)


def has_carrier(name: str) -> bool:
    """Return whether the other end is up too."""
    return _read(name, "carrier") == "1"


def _read(name: str, file: str) -> str:
    try:
        return (_SYS / name / file).read_text().strip() if name else ""
    except OSError:  # gone, or down and therefore without an answer
        return ""
