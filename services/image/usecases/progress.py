"""How far a transfer is, in the words that LXD's clients show as they are. Pure."""

from __future__ import annotations

_MIB = 1 << 20


def how_far(part: str, got: int, size: int, seconds: float) -> str:
    """Return share and speed; the bytes where *size* is not known (0)."""
    speed = f"({got / _MIB / max(seconds, 0.001):.2f}MB/s)"
    name = part if part == "metadata" else "rootfs"
    return (
        f"{name}: {min(100, got * 100 // size)}% {speed}" if size else f"{name}: {got / _MIB:.0f}MB {speed}"
    )
