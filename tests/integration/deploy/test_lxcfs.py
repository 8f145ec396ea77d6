"""The lxcfs of a member: started once, found again, ended by purge alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.settings import Settings
from deploy import lxcfs

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("lxcfs") or lxcfs.serves(lxcfs.HOST),
    reason="needs root, and a host without an lxcfs of its own",
)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "logs").mkdir()
    found = replace(Settings.from_env(), state_dir=tmp_path)
    yield found
    lxcfs.stop(found)


def test_it_is_started_once_and_found_again(settings: Settings) -> None:
    """A second one would leave the files of the first in containers, unserved by anybody."""
    assert lxcfs.ensure(settings)
    assert lxcfs.serves(settings.state_dir / "lxcfs")
    assert not lxcfs.ensure(settings)


def test_a_dead_one_is_replaced(settings: Settings) -> None:
    """Its mount stays behind, and nothing in it can be opened."""
    lxcfs.ensure(settings)
    os.kill(int((settings.state_dir / "lxcfs.pid").read_text()), 9)
    while lxcfs.serves(settings.state_dir / "lxcfs"):
        pass
    assert lxcfs.ensure(settings)


def test_what_has_its_number_now_is_left_alone(settings: Settings) -> None:
    """Numbers of processes come again."""
    (settings.state_dir / "lxcfs.pid").write_text(str(os.getpid()))
    lxcfs.stop(settings)
