"""What talks with strangers sees one folder and can do nothing else, whatever it would like to do."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import Unavailable
from services.runtime.kernel import jail, rsync
from services.runtime.kernel.processes import Child
from services.runtime.kernel.rsync import Rsync
from services.runtime.kernel.transit import RsyncTransit
from services.runtime.kernel.trees import Root

EVERYTHING = rsync._WRITES
FEATURES = frozenset({"xattrs", "delete", "exact"})
# Each of these would lead out, or at something of the host.
TRIES = """
test ! -e /proc/1 || echo sees processes
test ! -e /sys/kernel || echo sees the kernel
test ! -e /etc/passwd || echo sees the host
test "$(ls /)" = "bin
data
dev
lib
lib64
sbin
usr" || echo sees more
touch /usr/x 2>/dev/null && echo writes programs
mount -t tmpfs none /data 2>/dev/null && echo mounts
mount -o remount,rw /usr 2>/dev/null && echo remounts
chroot /data /bin/true 2>/dev/null && echo changes its root
mknod /data/volume/null c 1 3 && { : > /data/volume/null; } 2>/dev/null && echo opens devices
printf '#!/bin/sh\\n' > /data/volume/p && chmod 4755 /data/volume/p && /data/volume/p 2>/dev/null && echo runs
kill -0 PID 2>/dev/null && echo reaches processes
{ echo > /dev/tcp/127.0.0.1/22; } 2>/dev/null && echo reaches the network
exit 0
"""


def _jail(folder: Path) -> int:
    top = jail.empty_folder()
    mount = jail.folder_of(folder)
    jail.attach_at(top, "volume", mount)
    os.close(mount)
    root = jail.open_jail(top)
    os.close(top)
    return root


async def test_a_program_in_the_jail_gets_nowhere(tmp_path: Path) -> None:
    """Not even with all that a receiver may do."""
    root = _jail(tmp_path)
    said = os.memfd_create("said")
    script = TRIES.replace("PID", str(os.getpid()))
    child = Child(jail.jailed(root, EVERYTHING, ["bash", "-c", script]), stdout=said, stderr=said)
    assert await child.wait() == 0
    assert os.pread(said, 4096, 0).decode() == ""
    for fd in (root, said):
        os.close(fd)


async def test_what_is_in_the_jail_ends_with_its_process(tmp_path: Path) -> None:
    root = _jail(tmp_path)
    child = Child(jail.jailed(root, EVERYTHING, ["sh", "-c", "sleep 60 & touch /data/volume/up; wait"]))
    for _ in range(100):
        if (tmp_path / "up").exists():
            break
        await asyncio.sleep(0.05)
    inside = [p for p in Path("/proc").glob("[0-9]*/cmdline") if p.read_bytes() == b"sleep\x0060\0"]
    child.kill()
    await child.wait()
    os.close(root)
    await asyncio.sleep(0.2)
    assert inside
    assert not [p for p in inside if p.exists()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with whatever a root file system may hold."""
    folder = tmp_path / "source"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/file").write_text("text")
    os.chown(folder / "etc/file", 7, 9)
    (folder / "etc/file").chmod(0o4755)
    os.setxattr(folder / "etc/file", "user.a", b"1")
    (folder / "link").symlink_to("/etc/passwd")
    os.link(folder / "etc/file", folder / "same")
    os.mkfifo(folder / "pipe")
    os.mknod(folder / "null", 0o020666, os.makedev(1, 3))
    (folder / "null").chmod(0o666)
    (folder / "sparse").touch()
    os.truncate(folder / "sparse", 1 << 30)
    return folder


async def _carried(source: Path, target: Path) -> int:
    """Let one end send and the other receive; return the bytes that were sent."""
    transit, roots = RsyncTransit(), {"volume": Root(source, None)}
    async with (
        transit.sending({}, roots, "volume", FEATURES) as sends,
        transit.receiving(target, "", FEATURES) as receives,
    ):
        sent, _ = await asyncio.gather(_pumped(sends, receives), _pumped(receives, sends))
        await asyncio.gather(sends.wait(), receives.wait())
    return sent


async def _pumped(read: Rsync, write: Rsync) -> int:
    size = 0
    while data := await read.read():
        size += len(data)
        await write.write(data)
    write.end_input()
    return size


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Path]:
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "stale").touch()
    yield folder


async def test_all_that_a_root_holds_arrives(source: Path, target: Path) -> None:
    """And the second time next to nothing is sent."""
    await _carried(source, target)

    def shown(folder: Path) -> dict[str, tuple[object, ...]]:
        found = {p.name: os.lstat(p) for p in folder.rglob("*")}
        return {n: (s.st_mode, s.st_uid, s.st_gid, s.st_rdev, s.st_nlink) for n, s in found.items()}

    assert shown(target) == shown(source)
    assert os.getxattr(target / "etc/file", "user.a") == b"1"
    assert os.readlink(target / "link") == "/etc/passwd"
    assert os.lstat(target / "sparse").st_blocks == 0
    assert stat.S_ISCHR(os.lstat(target / "null").st_mode)
    assert await _carried(source, target) < 2000


async def test_what_comes_beside_a_root_is_read_and_links_are_not_followed(
    source: Path, target: Path
) -> None:
    """metadata.yaml and the templates are a stranger's too: a link would lead to files of the host."""
    files = {"metadata.yaml": b"text", "templates/a": b"one", "other": b"no"}
    transit, roots = RsyncTransit(), {"rootfs": Root(source, None)}
    async with (
        transit.sending(files, roots, "", FEATURES) as sends,
        transit.receiving(target, "rootfs", FEATURES) as receives,
    ):
        await asyncio.gather(_pumped(sends, receives), _pumped(receives, sends))
        await asyncio.gather(sends.wait(), receives.wait())
        templates = os.open(f"{jail.DATA}/templates", os.O_RDONLY | os.O_DIRECTORY, dir_fd=receives._jail)
        os.symlink("/etc/passwd", "b", dir_fd=templates)
        os.mkfifo("c", dir_fd=templates)
        os.close(templates)

        found = receives.beside()

    assert found == {"metadata.yaml": b"text", "templates/a": b"one"}


async def test_a_receiver_that_hears_nonsense_says_so(target: Path) -> None:
    async with RsyncTransit().receiving(target, "", FEATURES) as end:
        await end.write(b"\xff" * 100_000)
        end.end_input()
        while await end.read():
            pass
        with pytest.raises(Unavailable, match="could not be transferred"):
            await end.wait()
    assert (target / "stale").exists()
