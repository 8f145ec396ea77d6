"""The check of an etcd snapshot: whole, damaged, cut, or something else."""

import hashlib
import io

import pytest

from cli.etcd import checked


def a_snapshot(*, magic: int = 0xED0CDAED) -> bytes:
    pages = b"\0" * 16 + magic.to_bytes(4, "little") + b"\1" * (8192 - 20)
    return pages + hashlib.sha256(pages).digest()


def test_a_whole_snapshot_gives_its_hash():
    data = a_snapshot()

    assert checked(io.BytesIO(data), len(data)) == data[-32:].hex()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "pages"),
        (a_snapshot()[:-7], "pages"),
        (a_snapshot()[512:], "hash"),
        (a_snapshot()[:100] + b"x" + a_snapshot()[101:], "hash"),
        (a_snapshot(magic=1), "bbolt"),
    ],
)
def test_anything_else_is_refused_with_the_reason(data: bytes, why: str):
    with pytest.raises(ValueError, match=why):
        checked(io.BytesIO(data), len(data))
