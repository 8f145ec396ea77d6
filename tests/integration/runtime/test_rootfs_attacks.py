"""What an image or a guest plants in its root never leads out of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from services.runtime.kernel.beneath import open_beneath
from services.runtime.kernel.rootfs import LinuxRootFs


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "upper" / "etc").mkdir(parents=True)
    return tmp_path / "upper"


@pytest.mark.parametrize("kind", ["link", "pipe", "whiteout", "hardlink"])
async def test_seeding_replaces_what_the_guest_left(tmp_path: Path, upper: Path, kind: str) -> None:
    planted, secret = upper / "etc/hostname", tmp_path / "secret"
    if kind == "link":
        planted.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(planted)
    elif kind == "hardlink":
        planted.hardlink_to(secret)
    else:
        os.mknod(planted, 0o020000, os.makedev(0, 0))
    async with asyncio.timeout(5):
        await LinuxRootFs(tmp_path).seed(tmp_path, {"etc/hostname": "web\n"})
    assert planted.read_text() == "web\n"
    assert secret.read_text() == "secret"


async def test_seeding_does_not_follow_a_linked_folder(tmp_path: Path, upper: Path) -> None:
    (upper / "etc").rmdir()
    (tmp_path / "host").mkdir()
    (upper / "etc").symlink_to(tmp_path / "host")
    with pytest.raises(OSError):
        await LinuxRootFs(tmp_path).seed(tmp_path, {"etc/hostname": "web\n"})
    assert list((tmp_path / "host").iterdir()) == []


@pytest.mark.parametrize("path", ["../secret", "/../secret", "etc/../../secret", "abs", "up", "magic/secret"])
def test_no_path_leads_out_of_the_root(tmp_path: Path, upper: Path, path: str) -> None:
    (upper / "abs").symlink_to(tmp_path / "secret")
    (upper / "up").symlink_to("../../../../../../.." + str(tmp_path / "secret"))
    (upper / "magic").symlink_to(f"/proc/{os.getpid()}/cwd")
    root = os.open(upper, os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError):
            os.close(open_beneath(root, path, os.O_RDONLY))
    finally:
        os.close(root)


def test_absolute_links_are_read_as_the_guest_sees_them(upper: Path) -> None:
    (upper / "etc/real").write_text("inside")
    (upper / "link").symlink_to("/etc/real")
    root = os.open(upper, os.O_PATH | os.O_DIRECTORY)
    fd = open_beneath(root, "link", os.O_RDONLY)
    assert os.read(fd, 100) == b"inside"
    os.close(fd)
    os.close(root)
