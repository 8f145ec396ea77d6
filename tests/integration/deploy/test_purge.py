"""Purge deletes a tree as root, so what it refuses matters as much as what it removes."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from deploy.purge import check_ours, kill_children, purge
from deploy.turns import turn


def _settings(folder: Path) -> Settings:
    return Settings.from_env({"PODIUM_DIR": str(folder)})


@pytest.mark.parametrize("folder", ["/", "/var", "/var/lib", "/usr"])
def test_system_folders_are_not_taken_for_a_state_folder(folder: str) -> None:
    with pytest.raises(SystemExit, match="is not Podium's"):
        check_ours(Path(folder))


def test_a_folder_that_merely_has_run_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("kept")
    with pytest.raises(SystemExit, match="nothing was removed"):
        purge(_settings(tmp_path))
    assert (tmp_path / "precious").read_text() == "kept"


def _made(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    for name in ("run", "etcd", "images", "networks", "logs"):
        (state / name).mkdir(parents=True)
        (state / name / "file").touch()
    return state


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def test_what_set_up_made_is_removed(tmp_path: Path) -> None:
    state = _made(tmp_path)
    purge(_settings(state))
    assert not state.exists()


@pytest.mark.parametrize("cut", range(12))
def test_a_purge_that_was_cut_short_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Whatever was deleted by then, the next one knows the folder for Podium's and deletes the rest."""
    state, left = _made(tmp_path), cut
    calls = {name: getattr(os, name) for name in ("rmdir", "unlink")}

    def dies(name: str) -> Callable[..., None]:
        def call(*args: Any, **more: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            calls[name](*args, **more)

        return call

    with monkeypatch.context() as patch:
        for name in calls:
            patch.setattr(os, name, dies(name))
        with contextlib.suppress(KeyboardInterrupt):
            purge(_settings(state))
    purge(_settings(state))
    assert not state.exists()


def test_two_purges_at_once_do_not_meet(tmp_path: Path) -> None:
    state = _made(tmp_path)
    with ThreadPoolExecutor(2) as threads, turn(state):
        both = [threads.submit(purge, _settings(state)) for _ in range(2)]
        assert wait(both, 0.2).not_done == set(both)
        assert state.exists()
        os.unlink(state / "set-up.lock")  # as a purge does that has its turn
        (state / "set-up.lock").touch()
    for each in both:
        each.result(10)
    assert not state.exists()


def test_what_a_service_had_begun_is_ended_with_it() -> None:
    """A conversion, a copy or the start of a container goes on when its service is gone, and holds mounts."""
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & exit"], start_new_session=True)
    shell.wait()
    kill_children({shell.pid})
    sessions = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in _pids())
    assert not any(fields[3] == str(shell.pid) and fields[0] != "Z" for fields in sessions)


def test_purging_what_is_not_there_is_harmless(tmp_path: Path) -> None:
    purge(_settings(tmp_path / "absent"))
