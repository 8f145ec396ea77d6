"""Values as people write them: sizes, booleans, shares, CPU sets.

Parsers raise ValueError with LXD's own sentences, which its users' scripts know.
"""

from __future__ import annotations

import re

_BYTES = {"": 1, "B": 1, " bytes": 1}
_BYTES |= {f"{p}B": 1000 ** (i + 1) for i, p in enumerate("kMGTPE")}
_BYTES |= {f"{p}iB": 1024 ** (i + 1) for i, p in enumerate("KMGTPE")}
_BITS = {"": 1, "bit": 1}
_BITS |= {f"{p}bit": 1000 ** (i + 1) for i, p in enumerate("kMGTPE")}
_BITS |= {f"{p}ibit": 1024 ** (i + 1) for i, p in enumerate("KMGTPE")}
_SIZE = re.compile(r"([0-9]{1,18})([A-Za-z ]*)")
_MAX_BYTES = 2**63 - 1
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def parse_bytes(text: str) -> int:
    """Return bytes for "2GiB", "500MB" or "1024"."""
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in _BYTES:
        raise ValueError(f"Invalid value: {text[:64]}")
    size = int(match[1]) * _BYTES[match[2]]
    if size > _MAX_BYTES:
        raise ValueError(f"Invalid integer: {text[:64]}")
    return size


def parse_bits(text: str) -> int:
    """Return bits per second for "100Mbit", "1Gibit" or "5000"."""
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in _BITS:
        raise ValueError(f"{text[:40]!r} is not a bit rate such as 100Mbit")
    return min(int(match[1]) * _BITS[match[2]], _MAX_BYTES)


def parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError(f'Invalid value for a boolean "{text[:64]}"')
    return lowered in _TRUE


def parse_int(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(f'Invalid value for an integer "{text[:64]}"')
    return int(text)


def parse_priority(text: str) -> int:
    value = parse_int(text)
    if not 0 <= value <= 10:
        raise ValueError(f'Invalid value for a limit "{value}". Must be between 0 and 10')
    return value


def parse_memory(text: str, *, total_bytes: int) -> int:
    """Return bytes for a size or a share of *total_bytes* ("50%")."""
    if text.endswith("%"):
        return total_bytes * parse_int(text[:-1]) // 100
    return parse_bytes(text)


def check_memory(text: str) -> str:
    if parse_memory(text, total_bytes=1 << 40) <= 0:
        raise ValueError(f"Memory limit can't be {text}")
    return text


def parse_cpus(text: str) -> int | frozenset[int]:
    """Return a count for "2", or the CPUs of a set such as "0-3,7" or "1-1"."""
    if re.fullmatch(r"[0-9]{1,4}", text):
        if int(text) == 0:
            raise ValueError("Invalid CPU limit syntax")
        return int(text)
    cpus: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)):
            raise ValueError("Invalid CPU limit syntax")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError("Invalid CPU limit syntax")
        cpus.extend(range(first, last + 1))
    if len(set(cpus)) != len(cpus):
        raise ValueError("Cannot define CPU multiple times")
    return frozenset(cpus)


def parse_allowance(text: str) -> tuple[int, int] | int:
    """Return percent for "50%", or (quota, period) in milliseconds for "25ms/100ms"."""
    if match := re.fullmatch(r"([0-9]{1,5})%", text):
        return int(match[1])
    match = re.fullmatch(r"([0-9]{1,6})(?:ms)?/([0-9]{1,6})(?:ms)?", text)
    if match and int(match[1]) and 0 < int(match[2]) <= 1000:  # the kernel's longest period is a second
        return int(match[1]), int(match[2])
    raise ValueError(f"Invalid allowance: {text[:64]}")


_UNITS_S = {"S": 1, "M": 60, "H": 3600, "d": 86400, "w": 7 * 86400, "m": 30 * 86400, "y": 365 * 86400}


def parse_expiry(text: str) -> int:
    """Return seconds for "1H 30M" or "2d"; a month counts 30 days and a year 365."""
    seconds = 0
    for part in text.split(" "):
        if not (match := re.fullmatch(r"([0-9]{1,3})([SMHdwmy])", part)):
            raise ValueError("Invalid expiry expression")
        seconds += int(match[1]) * _UNITS_S[match[2]]
    if seconds > 1000 * _UNITS_S["y"]:
        raise ValueError(f"{text[:40]!r} is longer than a thousand years")
    return seconds
