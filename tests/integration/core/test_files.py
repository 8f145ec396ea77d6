"""Small files that are replaced as a whole: also where somebody else may write to the folder."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from core.files import replace_file


@pytest.mark.parametrize("durable", [False, True])
def test_what_was_there_is_replaced_and_nothing_else_is_left(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "note"
    for data in ("longer than what comes next", b"short"):
        replace_file(path, data, mode=0o600, durable=durable)
    assert path.read_bytes() == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_at_the_name_that_is_written_first_is_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "note"
    victim.write_text("mine")
    (tmp_path / "note.new").symlink_to(victim)
    replace_file(path, "said")
    assert (victim.read_text(), path.read_text()) == ("mine", "said")
    assert not path.is_symlink()


def test_who_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "note"
    replace_file(path, "before")
    (tmp_path / "note.new").mkdir()
    with pytest.raises(OSError):
        replace_file(path, "after")
    assert path.read_text() == "before"
