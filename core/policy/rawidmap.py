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
    """Return the entries of lines "both|uid|gid HOST[-LAST] INSIDE[-LAST]".

    Raises: ValueError, in LXD's words where it has them.
    """
    return [_entry(line) for line in text.splitlines() if line.strip()]


def _entry(line: str) -> RawIdmap:
    words = line.split()
    if len(words) != 3:
        raise ValueError(f'Invalid ID map line "{line[:64]}"')
    if words[0] not in _KINDS:
        raise ValueError(f'Invalid ID map type "{line[:64]}"')
    host, inside = _range(words[1]), _range(words[2])
    if len(host) != len(inside):
        raise ValueError(f'The ID map ranges are of different sizes "{line[:64]}"')
    return RawIdmap(_KINDS[words[0]], host, inside)


def _range(text: str) -> range:
    first, dash, last = text.partition("-")
    for part in (first, last) if dash else (first,):
        if not (part.isascii() and part.isdecimal()):
            raise ValueError(f'strconv.ParseInt: parsing "{part[:40]}": invalid syntax')
    found = range(int(first[:11]), int((last if dash else first)[:11]) + 1)
    if not found or found.stop - 1 > _MOST:
        raise ValueError(f"{text[:40]!r} is no id or range of ids")
    return found
