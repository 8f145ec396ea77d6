"""Set-up of the host, on folders of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.settings import Settings
from deploy import host
from deploy.host import copy_source, ensure_folders, ensure_subordinate_ids
from deploy.privileges import ROOT
from services.runtime.domain.idmaps import FIRST, LAST


def test_root_may_map_every_range_that_instances_get(tmp_path: Path) -> None:
    """Where newuidmap is installed, liblxc uses it, and it refuses what these files do not grant."""
    (tmp_path / "subuid").write_text("ann:100000:65536")

    ensure_subordinate_ids(tmp_path)
    ensure_subordinate_ids(tmp_path)

    granted = f"root:{FIRST}:{LAST - FIRST}\n"
    assert (tmp_path / "subuid").read_text() == "ann:100000:65536\n" + granted
    assert (tmp_path / "subgid").read_text() == granted


def test_a_copy_of_the_code_has_every_module(tmp_path: Path) -> None:
    """Names of packages left out of a copy once took a module of ours that begins like `pip` with them."""
    copy_source(tmp_path)

    rooms = [path.name for path in tmp_path.iterdir()]
    ours = {p.relative_to(ROOT) for room in rooms for p in (ROOT / room).rglob("*.py")}
    assert ours == {p.relative_to(tmp_path) for p in tmp_path.rglob("*.py")}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a state of its own, for a host that has the user."""
    if os.geteuid():
        pytest.skip("needs root")
    settings = Settings.from_env({"PODIUM_DIR": str(tmp_path / "state")})
    host.ensure_user(settings.group)
    monkeypatch.setattr(host, "_ensure_guests", lambda folder: None)
    ensure_folders(settings)
    return settings


def test_files_follow_a_user_that_was_made_anew(settings: Settings) -> None:
    """Packages and people remove system users; the next one of the name has another number."""
    state = settings.state_dir
    (state / "tls").mkdir()
    (state / "tls" / "key").touch()
    (state / "etcd" / "member").mkdir()
    (state / "images" / "link").symlink_to("/etc/passwd")
    now = (state / "etcd").stat()
    for path in (*state.iterdir(), *state.glob("*/*")):
        os.chown(path, 64999, 64998, follow_symlinks=False)
    (state / "tls" / "of-root").touch()

    ensure_folders(settings)

    there = [
        state / "etcd/member",
        state / "images/link",
        state / "tls/key",
        *(state / n for n in ("run", "tls")),
    ]
    assert {(p.lstat().st_uid, p.lstat().st_gid) for p in there} == {(now.st_uid, now.st_gid)}
    assert (state / "tls/of-root").stat().st_uid == 0
    assert Path("/etc/passwd").stat().st_uid == 0


def test_a_link_in_the_place_of_a_folder_is_not_followed(settings: Settings, tmp_path: Path) -> None:
    """Services without privileges own these folders, and root gives them away at each set-up."""
    (tmp_path / "of-root").mkdir(mode=0o700)
    (settings.state_dir / "images").rmdir()
    (settings.state_dir / "images").symlink_to(tmp_path / "of-root")
    with pytest.raises(OSError, match="Not a directory"):
        ensure_folders(settings)
    assert (tmp_path / "of-root").stat().st_uid == 0
