"""Lines of raw.idmap: which ids of the host an instance has as its own."""

from __future__ import annotations

from dataclasses import dataclass

_KINDS = {"uid": ("uid",), "gid": ("gid",), "both": ("uid", "gid")}
_MOST = 2**32 - 1


@dataclass(frozen=True)
class RawIdmap:
    """One line. kinds: uid, gid or both."""

    kinds: tuple[str, ...]
    host: range
    inside: range


def parse_rawidmap(text: str) -> list[RawIdmap]:
    """Return the entries of lines "both|uid|gid HOST[-LAST] INSIDE[-LAST]". Raises: ValueError."""
    return [_entry(line) for line in text.splitlines() if line.strip()]


def _entry(line: str) -> RawIdmap:
    words = line.split()
    if len(words) != 3 or words[0] not in _KINDS:
        raise ValueError(f"invalid raw.idmap line {line[:80]!r}; use: both|uid|gid HOST[-LAST] INSIDE[-LAST]")
    host, inside = _range(words[1]), _range(words[2])
    if len(host) != len(inside):
        raise ValueError(f"The source and destination ranges of {line[:80]!r} differ in size")
    return RawIdmap(_KINDS[words[0]], host, inside)


def _range(text: str) -> range:
    first, dash, last = text.partition("-")
    if not (first.isascii() and first.isdecimal()) or (dash and not (last.isascii() and last.isdecimal())):
        raise ValueError(f"{text[:40]!r} is no id or range of ids")
    found = range(int(first[:11]), int((last if dash else first)[:11]) + 1)
    if not found or found.stop - 1 > _MOST:
        raise ValueError(f"{text[:40]!r} is no id or range of ids")
    return found
