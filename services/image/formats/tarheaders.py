"""The parts of a tar header, as GNU tar and POSIX write them. Pure.

Source: tar(5), "Sparse Formats" of GNU tar's manual, pax(1).
"""

from __future__ import annotations

import zlib
from functools import lru_cache

from core.errors import Invalid

BLOCK = 512
PATH_MAX = 4096
_PART_MAX = 255
_ADLER = 65521
Segments = tuple[tuple[int, int], ...]
"""Where a sparse file has bytes: (offset in the file, length), in order."""


def bad(why: str) -> Invalid:
    return Invalid("BAD_ARCHIVE", f"The image's archive is refused: {why}")


def padded(size: int) -> int:
    return (size + BLOCK - 1) // BLOCK * BLOCK


def check_sum(block: bytes) -> None:
    """Raises: Invalid. The sum of bytes comes from adler32, whose low half is that sum plus one."""
    stored = number(block[148:156])
    whole = (zlib.adler32(block) & 0xFFFF) - 1
    if (stored - whole - 8 * 32 + sum(block[148:156])) % _ADLER:
        raise bad("a header is damaged")


@lru_cache(maxsize=1024)  # of most entries, owner and mode are those of the one before
def number(field: bytes) -> int:
    """Return an octal or base-256 number of a header. Raises: Invalid."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    if text.strip(b"01234567"):
        raise bad("a header has a number that is none")
    return int(text, 8) if text else 0


def time_of(field: bytes) -> int:
    """Return a time in seconds; those before 1970, which base 256 may hold, are 0."""
    return 0 if field[0] == 0xFF else number(field)


def own_path(block: bytes) -> bytes:
    name = block[0:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0", 1)[0]):
        return prefix + b"/" + name
    return name


def check_path(path: bytes) -> None:
    """Raises: Invalid for what is no path within the archive."""
    if not path or path[0] == 0x2F or b"\0" in path:
        raise bad(f"it has the entry {_shown(path)!r}, which is not a relative path")
    if len(path) > _PART_MAX and (
        len(path) > PATH_MAX or any(len(part) > _PART_MAX for part in path.split(b"/"))
    ):
        raise bad(f"it has the entry {_shown(path)!r} with a name that is too long")
    if b".." in path and b".." in path.split(b"/"):
        raise bad(f"it has the entry {_shown(path)!r}, which leads out of it")


def _shown(path: bytes) -> str:
    return path[:80].decode("utf-8", "replace")


def pax_records(text: bytes) -> list[tuple[bytes, bytes]]:
    """Raises: Invalid."""
    records, at = [], 0
    while at < len(text):
        end = text.find(b" ", at, at + 8)
        digits = text[at:end] if end > 0 else b""
        if (
            not digits.isdigit()
            or not (length := int(digits))
            or text[at + length - 1 : at + length] != b"\n"
        ):
            raise bad("an extended header is damaged")
        key, equals, value = text[end + 1 : at + length - 1].partition(b"=")
        if not equals:
            raise bad("an extended header is damaged")
        records.append((key, value))
        at += length
    return records


def decimal(value: bytes, most: int = 1 << 63) -> int:
    """Raises: Invalid."""
    if not value.isdigit() or len(value) > 20 or (found := int(value)) > most:
        raise bad("it has a size that is no number")
    return found


def sparse_fields(block: bytes, at: int, count: int) -> list[tuple[int, int]]:
    """Return segments of GNU's own sparse format from a header or an extension of it."""
    found = []
    for start in range(at, at + 24 * count, 24):
        if not block[start]:
            break
        found.append((number(block[start : start + 12]), number(block[start + 12 : start + 24])))
    return found


def sparse_pairs(values: list[bytes]) -> Segments:
    """Return segments from numbers in the order of the pax formats."""
    if len(values) % 2:
        raise bad("a sparse file has half a segment")
    numbers = [decimal(value) for value in values]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def check_segments(segments: Segments, *, stored: int, real: int) -> None:
    """Raises: Invalid for segments that overlap, leave the file, or are not what is stored."""
    end = total = 0
    for offset, length in segments:
        if offset < end or offset + length > real:
            raise bad("a sparse file has segments that do not fit")
        end, total = offset + length, total + length
    if total > stored:
        raise bad("a sparse file has more in it than was sent")
