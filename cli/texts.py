"""Sizes, times and numbers as the stock client writes them. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_DECIMAL = ("kB", "MB", "GB", "TB", "PB", "EB")
_BINARY = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: float, *, digits: int = 2) -> str:
    """1500 gives "1.50kB"."""
    return _scaled(count, 1000, _DECIMAL, digits)


def binary_size(count: float, *, digits: int = 2) -> str:
    """1536 gives "1.50KiB"."""
    return _scaled(count, 1024, _BINARY, digits)


def _scaled(count: float, step: int, names: tuple[str, ...], digits: int) -> str:
    if count < step:
        return f"{count:.0f}B"
    value = float(count)
    for name in names:
        value /= step
        if value < step:
            return f"{value:.{digits}f}{name}"
    return f"{value * step:.{digits}f}EB"


def parse_time(text: str) -> datetime | None:
    """Return a server's time; None for "never" (year 1, and the epoch for expiry dates)."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$", text)
    if not match:
        return None
    at = datetime.fromisoformat(match[1] + (match[2] or "")[:7] + match[3].replace("Z", "+00:00"))
    return None if at.year <= 1 else at


def short_time(text: str, *, never: str = "") -> str:
    """Return "2026/11/24 06:55 UTC" in the local time zone."""
    at = parse_time(text)
    if at is None or at.timestamp() <= 0:
        return never
    return at.astimezone().strftime("%Y/%m/%d %H:%M %Z")


def long_time(text: str) -> str:
    """Return "Nov 24, 2026 at 6:48am (UTC)", in UTC."""
    at = parse_time(text)
    if at is None:
        return ""
    at = at.astimezone(UTC)
    return (
        f"{at:%b} {at.day}, {at.year} at {at.hour % 12 or 12}:{at:%M}{at:%p}".replace("AM", "am").replace(
            "PM", "pm"
        )
        + " (UTC)"
    )


def duration(seconds: float) -> str:
    """Return "130 ms" or "12.3 s"."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
