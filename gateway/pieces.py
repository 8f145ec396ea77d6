"""Bodies put together of texts and files, and pieces of them (RFC 9110: ranges, conditions). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from typing import Generic, TypeVar

T = TypeVar("T")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True)
class Piece(Generic[T]):
    """A text, or *size* bytes of a file."""

    size: int
    text: bytes = b""
    file: T | None = None


def of_text(text: bytes) -> Piece[T]:
    return Piece(len(text), text)


@dataclass(frozen=True)
class Cut(Generic[T]):
    """A part of a piece."""

    piece: Piece[T]
    offset: int
    length: int


def cut(pieces: Sequence[Piece[T]], start: int, length: int) -> Iterator[Cut[T]]:
    """Yield what lies in the *length* bytes from *start* on."""
    for piece in pieces:
        if start < piece.size and length:
            taken = min(piece.size - start, length)
            yield Cut(piece, start, taken)
            length -= taken
        start = max(0, start - piece.size)


@dataclass(frozen=True)
class Answer:
    """Status, headers, and which bytes follow."""

    status: int
    headers: dict[str, str]
    start: int
    length: int


def answer(headers: Mapping[str, str], *, size: int, etag: str, modified: float) -> Answer:
    """Return how a GET or HEAD with these *headers* of a body of *size* bytes is answered.

    modified: unix seconds. What is not understood of a range is answered with the whole, as RFC 9110 wants.
    """
    stamp = formatdate(modified, usegmt=True)
    known = {"ETag": f'"{etag}"', "Last-Modified": stamp, "Accept-Ranges": "bytes"}
    if _has_it(headers, etag, modified):
        return Answer(304, known, 0, 0)
    wanted = (
        _range(headers.get("Range", ""), size) if _same(headers.get("If-Range", ""), etag, stamp) else None
    )
    if wanted is None:
        return Answer(200, {**known, "Content-Length": str(size)}, 0, size)
    start, end = wanted
    if start >= size:
        return Answer(416, {**known, "Content-Range": f"bytes */{size}", "Content-Length": "0"}, 0, 0)
    told = {"Content-Range": f"bytes {start}-{end}/{size}", "Content-Length": str(end - start + 1)}
    return Answer(206, {**known, **told}, start, end - start + 1)


def _has_it(headers: Mapping[str, str], etag: str, modified: float) -> bool:
    if tags := headers.get("If-None-Match", ""):
        given = [tag.strip().removeprefix("W/").strip('"') for tag in tags.split(",")]
        return etag in given or tags.strip() == "*"
    try:
        return int(modified) <= parsedate_to_datetime(headers.get("If-Modified-Since", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return False


def _same(condition: str, etag: str, stamp: str) -> bool:
    return condition.strip() in ("", f'"{etag}"', stamp)


def _range(text: str, size: int) -> tuple[int, int] | None:
    found = _RANGE.fullmatch(text.replace(" ", ""))
    if not found or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size - 1
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last or size), size - 1)
