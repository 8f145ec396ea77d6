"""What an image or a guest plants in its root never leads out of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from core.errors import Invalid
from services.runtime.domain.idmaps import id_map
from services.runtime.kernel.beneath import open_beneath, parent_beneath
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


@pytest.mark.parametrize("kind", ["link", "absolute link", "pipe", "whiteout", "file"])
async def test_seeding_leaves_a_folder_that_the_guest_replaced(
    tmp_path: Path, upper: Path, kind: str
) -> None:
    """A guest may have moved /etc away; it can still be renamed, and nothing outside is written."""
    (upper / "etc").rmdir()
    host = tmp_path / "host"
    host.mkdir()
    planted = upper / "etc"
    if kind.endswith("link"):
        planted.symlink_to(host if kind == "absolute link" else "../host")
    elif kind == "pipe":
        os.mkfifo(planted)
    elif kind == "whiteout":
        os.mknod(planted, 0o020000, os.makedev(0, 0))
    else:
        planted.write_text("mine")
    before = os.lstat(planted)
    await LinuxRootFs(tmp_path).seed(tmp_path, {"etc/hostname": "web\n"})
    assert os.lstat(planted) == before
    assert list(host.iterdir()) == []


async def test_seeding_writes_into_an_opaque_folder(tmp_path: Path, upper: Path) -> None:
    """A folder that the guest deleted and made again hides the image's; it is as good as any."""
    os.setxattr(upper / "etc", "trusted.overlay.opaque", b"y")
    await LinuxRootFs(tmp_path).seed(tmp_path, {"etc/hostname": "web\n"})
    assert (upper / "etc/hostname").read_text() == "web\n"
    assert os.getxattr(upper / "etc", "trusted.overlay.opaque") == b"y"


async def test_seeding_keeps_a_folder_in_the_place_of_a_file(tmp_path: Path, upper: Path) -> None:
    (upper / "etc/hostname").mkdir()
    await LinuxRootFs(tmp_path).seed(tmp_path, {"etc/hostname": "web\n", "etc/hosts": "x"})
    assert (upper / "etc/hostname").is_dir()
    assert (upper / "etc/hosts").read_text() == "x"


async def test_seeding_does_not_hide_a_link_of_the_image(tmp_path: Path, upper: Path) -> None:
    """In some images /etc is a link; a folder of ours above it would leave the guest without its /etc."""
    (upper / "etc").rmdir()
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "etc").symlink_to("usr/etc")
    await LinuxRootFs(tmp_path).seed(tmp_path, {"etc/hostname": "web\n"}, lower)
    assert list(upper.iterdir()) == []


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


@pytest.mark.parametrize(
    "path", ["proc/sys/kernel/core_pattern", "proc/kmsg", "sys/kernel/mm/transparent_hugepage/enabled"]
)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_PATH])
def test_what_the_kernel_shows_is_never_opened(path: str, flags: int) -> None:
    """A client confined to one container once set the host's core_pattern through its files: root there."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(Invalid, match="kernel's own"):
            open_beneath(root, path, flags)
        with pytest.raises(Invalid, match="kernel's own"):
            parent_beneath(root, path)
    finally:
        os.close(root)


@pytest.mark.parametrize("kind", ["device", "pipe", "link to a pipe", "socket"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_what_is_no_file_is_not_even_opened(upper: Path, kind: str, flags: int) -> None:
    """Opening alone starts a watchdog or rewinds a tape, and may wait for ever."""
    special = {"device": 0o020000, "socket": 0o140000}.get(kind, 0o010000)
    os.mknod(upper / "special", special | 0o666, os.makedev(1, 3))
    if kind == "link to a pipe":
        (upper / "special").rename(upper / "pipe")
        (upper / "special").symlink_to("pipe")
    root = os.open(upper, os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(Invalid, match="no regular file"):
            open_beneath(root, "special", flags)
    finally:
        os.close(root)


@pytest.mark.parametrize(("raw", "shift"), [("", 0), ("both 1000 0", 0), ("gid 1000 0", 7), ("", 7)])
async def test_an_image_brings_no_power_of_the_hosts_root(tmp_path: Path, raw: str, shift: int) -> None:
    """The id that host root has in the layers is no secret, and a setuid file of it would be root's.

    A user of the host whose group is that of root inside may enter the folder, and could run it.
    """
    idmap = id_map(1_500_000, 65_536, raw)
    lower, volume = tmp_path / "lower", tmp_path / "volume"
    for folder in (lower, volume / "upper", volume / "work"):
        folder.mkdir(parents=True)
        os.chown(folder, shift, shift)
    (lower / "f").touch(0o755)
    os.chown(lower / "f", shift + 65_536, shift + 65_536)
    (lower / "f").chmod(0o4755)
    rootfs = LinuxRootFs(tmp_path)
    root = await rootfs.ensure_mounted("i1", lower, volume, idmap, shift=shift)
    try:
        may_enter = (root.parent.stat().st_gid < 1_000_000, shift > 0)
        assert (root / "f").stat().st_uid != 0 or not any(may_enter)
        # Nor may such a user open a disk of the host by a device node of the image.
        assert os.statvfs(root).f_flag & os.ST_NODEV or not may_enter[0]
    finally:
        await rootfs.ensure_unmounted("i1")
