"""Files that templates bring into a root, where a stranger has laid out what lies on the way."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from core.errors import Invalid
from services.runtime.kernel.planting import plant, present

OWNER = 1_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("host")
    (tmp_path / "root" / "etc").mkdir(parents=True)
    return tmp_path / "root"


def test_new_files_and_folders_belong_to_the_guest(root: Path) -> None:
    """As if its own root had made them."""
    plant(root, {"/etc/new/deep/file": b"x"}, (OWNER, OWNER))

    made = root / "etc/new/deep/file"
    assert made.read_bytes() == b"x"
    assert oct(made.stat().st_mode & 0o7777) == "0o644"
    assert {path.stat().st_uid for path in (made, made.parent, made.parent.parent)} == {OWNER}


def test_what_was_there_keeps_its_owner_and_mode(root: Path) -> None:
    """Only the content is the template's."""
    (root / "etc/old").write_text("a longer text")
    (root / "etc/old").chmod(0o640)
    os.chown(root / "etc/old", OWNER + 5, OWNER + 6)

    plant(root, {"/etc/old": b"new"}, (OWNER, OWNER))

    found = (root / "etc/old").stat()
    assert (root / "etc/old").read_bytes() == b"new"
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (OWNER + 5, OWNER + 6, 0o640)


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../..{outside}", "/proc/self/root{outside}"])
@pytest.mark.parametrize("place", ["/etc/link", "/linked/secret"])
def test_links_lead_nowhere_else(root: Path, target: str, place: str) -> None:
    """The image says where templates go, and what lies there (CVE-2026-23954, -48752)."""
    outside = root.parent / "secret"
    (root / "etc/link").symlink_to(target.format(outside=outside))
    (root / "linked").symlink_to(target.format(outside=outside.parent))
    with contextlib.suppress(Invalid, OSError):
        plant(root, {place: b"guest"}, (OWNER, OWNER))

    assert outside.read_text() == "host"


@pytest.mark.parametrize("path", ["/../secret", "/etc/../../secret", "/etc/..", "/.."])
def test_a_path_leads_nowhere_else(root: Path, path: str) -> None:
    """Metadata with such paths is refused before; this is for what was not."""
    with pytest.raises((Invalid, OSError)):
        plant(root, {path: b"guest"}, (OWNER, OWNER))
    assert (root.parent / "secret").read_text() == "host"


def test_pipes_and_folders_are_left_alone(root: Path) -> None:
    """Opening a pipe would wait for its other end for ever."""
    os.mkfifo(root / "etc/pipe")
    for path in ("/etc/pipe", "/etc"):
        with pytest.raises((Invalid, OSError)):
            plant(root, {path: b"x"}, (OWNER, OWNER))


def test_a_link_that_leads_to_nothing_becomes_the_file(root: Path) -> None:
    """An image may have /etc/localtime link to what a package brings later."""
    (root / "etc/dangling").symlink_to("/nowhere/else")

    plant(root, {"/etc/dangling": b"x"}, (OWNER, OWNER))

    assert (root / "etc/dangling").read_bytes() == b"x"
    assert not (root / "etc/dangling").is_symlink()


def test_what_is_there_is_told(root: Path) -> None:
    """create_only is for places where nothing is; what is no place counts as taken."""
    (root / "etc/file").write_text("")
    assert present(root, ["/etc/file", "/etc/none", "/etc/file/below"]) == {"/etc/file", "/etc/file/below"}
