"""Listings of a guest's folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.errors import WrongState
from services.runtime.usecases.inside import files


def test_a_folder_is_listed_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).touch()
    fd = os.open(tmp_path, os.O_PATH)
    assert files._entries(fd) == ["a", "b"]
    os.close(fd)


def test_a_guest_cannot_fill_our_memory_with_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_LISTED", 5)
    for name in ("aaa", "bbb"):
        (tmp_path / name).touch()
    fd = os.open(tmp_path, os.O_PATH)
    with pytest.raises(WrongState, match="too many entries"):
        files._entries(fd)
    os.close(fd)
