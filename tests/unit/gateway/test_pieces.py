"""Pieces of bodies: what RFC 9110 says of ranges and conditions."""

from __future__ import annotations

import pytest

from gateway.pieces import Piece, answer, cut, of_text

_BODY: list[Piece[str]] = [of_text(b"head"), Piece(10, file="one"), of_text(b"-"), Piece(5, file="two")]
_SIZE = 20


@pytest.mark.parametrize(
    ("range", "status", "start", "length"),
    [
        ("", 200, 0, 20),
        ("bytes=0-0", 206, 0, 1),
        ("bytes=3-", 206, 3, 17),
        ("bytes=-4", 206, 16, 4),
        ("bytes=-400", 206, 0, 20),
        ("bytes=5-400", 206, 5, 15),
        ("bytes=20-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        # What is not understood is as if it were not there.
        ("bytes=7-3", 200, 0, 20),
        ("bytes=-", 200, 0, 20),
        ("bytes=0-1,4-5", 200, 0, 20),
        ("bytes=a-b", 200, 0, 20),
        ("bytes=" + "9" * 40 + "-", 200, 0, 20),
        ("lines=0-1", 200, 0, 20),
    ],
)
def test_a_range_is_answered_with_that_piece(range: str, status: int, start: int, length: int) -> None:
    found = answer({"Range": range}, size=_SIZE, etag="e", modified=0)

    assert (found.status, found.start, found.length) == (status, start, length)
    assert found.headers["Content-Length"] == str(length)


def test_a_range_of_another_state_of_the_file_gets_the_whole() -> None:
    """Else two halves of different files would be put together."""
    asked = {"Range": "bytes=5-", "If-Range": '"old"'}
    assert answer(asked, size=_SIZE, etag="e", modified=0).status == 200
    assert answer({**asked, "If-Range": '"e"'}, size=_SIZE, etag="e", modified=0).status == 206
    assert (
        answer(
            {**asked, "If-Range": "Thu, 01 Jan 1970 00:00:00 GMT"}, size=_SIZE, etag="e", modified=0
        ).status
        == 206
    )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": '"e"'}, 304),
        ({"If-None-Match": 'W/"e"'}, 304),
        ({"If-None-Match": '"a", "e"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"a"'}, 200),
        ({"If-None-Match": '"a"', "If-Modified-Since": "Thu, 01 Jan 2026 00:00:00 GMT"}, 200),
        ({"If-Modified-Since": "Thu, 01 Jan 2026 00:00:00 GMT"}, 304),
        ({"If-Modified-Since": "Wed, 31 Dec 2025 23:59:59 GMT"}, 200),
        ({"If-Modified-Since": "soon"}, 200),
        ({"If-Modified-Since": "Thu, 01 Jan 99999 00:00:00 GMT"}, 200),
    ],
)
def test_what_the_client_has_already_is_not_sent(headers: dict[str, str], status: int) -> None:
    made = 1767225600.9  # 2026-01-01, and a bit that the header cannot tell

    assert answer(headers, size=_SIZE, etag="e", modified=made).status == status


def test_every_piece_of_a_body_is_the_same_piece_of_the_whole() -> None:
    texts = {"one": b"0123456789", "two": b"abcde"}
    whole = b"".join(texts[piece.file] if piece.file else piece.text for piece in _BODY)
    for start in range(_SIZE + 1):
        for length in range(_SIZE - start + 1):
            found = b""
            for part in cut(_BODY, start, length):
                source = texts[part.piece.file] if part.piece.file else part.piece.text
                found += source[part.offset : part.offset + part.length]
            assert found == whole[start : start + length]
