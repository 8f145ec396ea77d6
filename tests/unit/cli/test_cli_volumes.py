"""`podium storage volume`: how words name volumes, and how volumes are listed."""

from __future__ import annotations

import pytest

from cli import volumes


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("data", "custom/data"),
        ("custom/data", "custom/data"),
        ("container/web", "container/web"),
        ("data/snap0", "custom/data/snapshots/snap0"),
        ("custom/my data/a b", "custom/my%20data/snapshots/a%20b"),
    ],
)
def test_a_word_names_a_volume_of_a_type_or_a_snapshot(name: str, path: str) -> None:
    assert volumes.place("p", name) == f"/1.0/storage-pools/p/volumes/{path}"


def test_a_snapshot_is_listed_as_one() -> None:
    volume = {
        "type": "custom",
        "name": "a/s0",
        "description": "",
        "content_type": "filesystem",
        "used_by": None,
    }
    assert volumes._row(volume) == ["custom (snapshot)", "a/s0", "", "filesystem", "0"]
