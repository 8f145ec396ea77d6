"""The link that makes `podium` a command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from core.settings import Settings
from deploy.command import ensure_command, remove_command, write_launcher
from deploy.privileges import ROOT

OURS = Settings.from_env({})


def test_setup_makes_the_link_and_purge_removes_it(tmp_path: Path) -> None:
    """Both may be repeated; afterwards there is no trace."""
    link = tmp_path / "podium"
    assert [ensure_command(OURS, link), ensure_command(OURS, link)] == ["podium", "podium"]
    assert link.resolve().name == "podium"
    remove_command(OURS, link)
    remove_command(OURS, link)
    assert not link.is_symlink()


def test_somebody_elses_command_is_left_alone(tmp_path: Path) -> None:
    link = tmp_path / "podium"
    link.write_text("theirs")
    assert Path(ensure_command(OURS, link)).is_absolute()
    remove_command(OURS, link)
    assert link.read_text() == "theirs"


def test_a_link_into_a_checkout_that_is_gone_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "podium"
    link.symlink_to(tmp_path / "gone" / "bin" / "podium")
    assert ensure_command(OURS, link) == "podium"
    assert link.exists()


def test_a_throw_away_podium_neither_makes_nor_takes_the_link(tmp_path: Path) -> None:
    link = tmp_path / "podium"
    other = replace(OURS, state_dir=tmp_path)
    assert ensure_command(other, link).endswith("/bin/podium")
    assert not link.is_symlink()
    ensure_command(OURS, link)
    remove_command(other, link)
    assert link.is_symlink()


def test_who_may_not_enter_the_checkout_runs_its_copy(tmp_path: Path) -> None:
    """A checkout in /root is closed to the users of group podium, whom the socket lets in."""
    app = tmp_path / "app"
    shutil.copytree(ROOT / "cli", app / "src" / "cli")
    write_launcher(app, sys.executable)
    file = app / "podium"
    assert "exec '" + str(ROOT / "bin" / "podium") in file.read_text()
    file.write_text(file.read_text().replace(str(ROOT / "bin" / "podium"), "/nonexistent"))
    done = subprocess.run([str(file), "--version"], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip()
