"""Purge deletes a tree as root, so what it refuses matters as much as what it removes."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings import Settings
from deploy.purge import check_ours, purge


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


def test_what_set_up_made_is_removed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for name in ("run", "etcd", "images", "networks", "logs"):
        (state / name).mkdir(parents=True)
    purge(_settings(state))
    assert not state.exists()


def test_purging_what_is_not_there_is_harmless(tmp_path: Path) -> None:
    purge(_settings(tmp_path / "absent"))
