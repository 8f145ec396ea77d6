"""Copies of volumes, the same for every storage driver, on the real kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import PodiumError, WrongState
from services.runtime.ports import StorageDriver, VolumeKind
from services.runtime.storage.drivers import available
from services.runtime.storage.tree import copy_tree

CONFIG = {"dir": {}, "btrfs": {"size": "512MiB"}, "zfs": {"size": "512MiB"}}
MIB = 1 << 20
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="podium-copies-", dir="/var/tmp"))
    yield folder
    for pool in (folder / "pools").glob("*"):
        subprocess.run(["umount", "-q", str(pool)], check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["dir", "btrfs", "zfs"])
async def driver(request: pytest.FixtureRequest, state: Path) -> AsyncIterator[StorageDriver]:
    drivers, reasons = available(state)
    if request.param in reasons:
        pytest.skip(reasons[request.param])
    made = drivers[request.param]
    filled = await made.create_pool("p", CONFIG[request.param])
    yield made
    with contextlib.suppress(PodiumError, OSError):
        await made.delete_pool("p", filled)


@pytest.fixture
async def other(driver: StorageDriver, state: Path) -> AsyncIterator[StorageDriver]:
    """A driver of the other kind, with a pool "q"."""
    name = "btrfs" if driver.name == "dir" else "dir"
    drivers, reasons = available(state)
    if name in reasons:
        pytest.skip(reasons[name])
    filled = await drivers[name].create_pool("q", CONFIG[name])
    yield drivers[name]
    await drivers[name].delete_pool("q", filled)


def fill(upper: Path) -> None:
    """Put in what a guest's upper layer may hold."""
    (upper / "etc").mkdir(mode=0o750)
    os.chown(upper / "etc", 5, 6)
    file = upper / "etc" / "passwd"
    file.write_text("root")
    os.chown(file, 1000, 1001)
    file.chmod(0o4711)
    os.setxattr(file, "user.note", b"kept")
    os.setxattr(file, "security.capability", CAPABILITY)
    os.link(file, upper / "twin")
    os.setxattr(upper / "etc", "trusted.overlay.opaque", b"y")
    os.mknod(upper / "deleted", 0o020600, 0)
    os.mkfifo(upper / "pipe")
    os.symlink("/etc/shadow", upper / "link")
    os.chown(upper / "link", 7, 8, follow_symlinks=False)
    with (upper / "sparse").open("wb") as sparse:
        sparse.seek(64 * MIB)
        sparse.write(b"end")
    os.utime(file, ns=(1_000_000_001, 1_000_000_002))
    os.utime(upper / "etc", ns=(1_000_000_003, 1_000_000_004))


def shape(folder: Path) -> dict[str, object]:
    """Return all that must survive a copy, by path."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        s = path.lstat()
        attributes = {
            k: os.getxattr(path, k, follow_symlinks=False) for k in os.listxattr(path, follow_symlinks=False)
        }
        content = (
            path.read_bytes() if stat.S_ISREG(s.st_mode) else os.readlink(path) if path.is_symlink() else ""
        )
        times = s.st_mtime_ns if path.name != "work" else 0
        found[str(path.relative_to(folder))] = (
            s.st_mode,
            s.st_uid,
            s.st_gid,
            s.st_rdev,
            times,
            attributes,
            content,
        )
    return found


async def test_a_clone_holds_all_that_its_source_held(driver: StorageDriver) -> None:
    source = await driver.ensure_volume("p", "c1")
    fill(source / "upper")
    before = shape(source / "upper")
    clone = await driver.clone_volume("p", "c2", source)
    (source / "upper" / "later").write_text("x")

    assert clone == driver.volume("p", "c2")
    assert shape(clone / "upper") == before
    assert (clone / "upper/twin").stat().st_ino == (clone / "upper/etc/passwd").stat().st_ino
    assert (clone / "upper/sparse").stat().st_blocks * 512 < MIB
    assert clone.stat().st_mode & 0o777 == 0o700
    assert await driver.volumes("p") == ["c1", "c2"]


async def test_a_clone_between_pools_is_the_same(driver: StorageDriver, other: StorageDriver) -> None:
    source = await driver.ensure_volume("p", "c1")
    fill(source / "upper")
    clone = await other.clone_volume("q", "c1", source)
    assert shape(clone / "upper") == shape(source / "upper")


async def test_what_an_overlay_was_in_the_middle_of_is_left_out(driver: StorageDriver) -> None:
    source = await driver.ensure_volume("p", "c1")
    (source / "work/work").mkdir()
    (source / "work" / "work" / "#7").write_text("half a copy-up")
    (source / "work/incompat/volatile").mkdir(parents=True)
    clone = await driver.clone_volume("p", "c2", source)
    assert list((clone / "work").iterdir()) == []


async def test_a_clone_that_is_there_stays(driver: StorageDriver) -> None:
    """A step that is repeated after a crash must not take away what was written since."""
    source = await driver.ensure_volume("p", "c1")
    clone = await driver.clone_volume("p", "c2", source)
    (clone / "upper/own").write_text("x")
    await driver.clone_volume("p", "c2", source)
    assert (clone / "upper/own").exists()


async def test_a_clone_that_died_half_way_is_neither_seen_nor_in_the_way(
    driver: StorageDriver, state: Path
) -> None:
    if driver.name not in ("dir", "btrfs"):
        pytest.skip("no folder tells what is half-made; test_mounted_volumes.py has it")
    source = await driver.ensure_volume("p", "c1")
    (source / "upper/file").write_text("x")
    half = await driver.ensure_volume("p", ".new-c2")
    (half / "upper/half").write_text("x")
    assert await driver.volumes("p") == ["c1"]
    clone = await driver.clone_volume("p", "c2", source)
    assert [path.name for path in (clone / "upper").iterdir()] == ["file"]
    half = await driver.ensure_volume("p", ".new-c3")
    pool = state / {"btrfs": "disks/p.img", "zfs": "disks/p.zfs"}.get(driver.name, "pools/p")
    await driver.ensure_open("p", {"source": str(pool)})
    assert not half.exists()


async def test_a_volume_is_replaced_as_a_whole(driver: StorageDriver) -> None:
    volume, snapshot = await driver.ensure_volume("p", "c1"), await driver.ensure_volume("p", "s1")
    (volume / "upper/new").write_text("x")
    (snapshot / "upper/old").write_text("x")
    for _ in range(2):
        assert await driver.replace_volume("p", "c1", snapshot) == volume
    assert [path.name for path in (volume / "upper").iterdir()] == ["old"]
    assert await driver.volumes("p") == ["c1", "s1"]
    assert sorted(path.name for path in volume.parent.iterdir()) == ["c1", "s1"]


async def test_a_refresh_takes_over_what_differs(driver: StorageDriver, other: StorageDriver) -> None:
    source = await driver.ensure_volume("p", "c1")
    fill(source / "upper")
    for name in ("same", "changed", "gone", "kind"):
        (source / "upper" / name).write_text(name)
    copy = await other.clone_volume("q", "c1", source)

    (source / "upper/changed").write_text("something else")
    (source / "upper/gone").unlink()
    (source / "upper/kind").unlink()
    (source / "upper/kind").mkdir()
    os.removexattr(source / "upper/etc", "trusted.overlay.opaque")
    os.setxattr(source / "upper/same", "user.note", b"new")
    os.setxattr(source / "upper/etc/passwd", "user.note", b"new")
    (copy / "upper/etc/strange").write_text("x")
    (copy / "upper/folder").mkdir()
    (copy / "upper/folder/strange").write_text("x")
    (source / "upper/new").symlink_to("x")
    await other.refresh_volume("q", "c1", source)

    assert shape(copy / "upper") == shape(source / "upper")
    assert (copy / "upper/kind").is_dir()
    await other.refresh_volume("q", "c1", source)
    kept = (copy / "upper/same").stat().st_ino
    await other.refresh_volume("q", "c1", source)
    assert (copy / "upper/same").stat().st_ino == kept, "what is the same is not copied again"


async def test_kinds_have_names_of_their_own(driver: StorageDriver) -> None:
    own = await driver.ensure_volume("p", "x")
    custom = await driver.ensure_volume("p", "x", kind=VolumeKind.CUSTOM)
    assert own != custom
    assert list(custom.iterdir()) == []
    assert stat.S_IMODE(custom.stat().st_mode) == 0o711, "as LXD makes them"
    (custom / "file").write_text("x")
    copy = await driver.clone_volume("p", "y", custom, kind=VolumeKind.CUSTOM)
    assert [path.name for path in copy.iterdir()] == ["file"]
    assert await driver.volumes("p", kind=VolumeKind.CUSTOM) == ["x", "y"]
    await driver.delete_volume("p", "x", kind=VolumeKind.CUSTOM)
    assert own.exists()
    assert await driver.volumes("p", kind=VolumeKind.CUSTOM) == ["y"]


async def test_the_bound_of_a_copy_is_its_own(driver: StorageDriver) -> None:
    if driver.name == "dir":
        pytest.skip("it bounds nothing")
    source = await driver.ensure_volume("p", "c1", size=16 * MIB)
    clone = await driver.clone_volume("p", "c2", source, size=48 * MIB)
    (clone / "upper/big").write_bytes(os.urandom(32 * MIB))
    free = await driver.clone_volume("p", "c3", source)
    (free / "upper/big").write_bytes(os.urandom(32 * MIB))
    await driver.replace_volume("p", "c1", free, size=40 * MIB)
    with pytest.raises(OSError, match="quota"):
        (source / "upper/more").write_bytes(os.urandom(16 * MIB))


# --- hostile trees -------------------------------------------------------------------------------------


def test_folders_deeper_than_anybody_needs_are_refused(state: Path) -> None:
    """A guest must not take our stack or our descriptors."""
    at = os.open(".", os.O_RDONLY)
    (state / "source").mkdir()
    os.chdir(state / "source")
    try:
        for _ in range(3000):
            os.mkdir("d")
            os.chdir("d")
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(WrongState, match="deep"):
            copy_tree(state / "source", state / "target")
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.fchdir(at)
        os.close(at)
        subprocess.run(["rm", "-rf", str(state / "source")], check=True)


def test_a_guest_that_swaps_folders_for_links_reaches_nothing_of_ours(state: Path) -> None:
    """While the copy is made, a folder becomes a link to a folder of the host and back, all the time."""
    secret, source = state / "secret", state / "source"
    for folder in (secret, source, source / "d"):
        folder.mkdir()
    (secret / "f").write_text("secret")
    (source / "d/f").write_text("guest")
    ended = threading.Event()

    def swap() -> None:
        (source / "l").symlink_to(secret)
        while not ended.is_set():
            (source / "d").rename(source / "x")
            (source / "l").rename(source / "d")
            (source / "d").rename(source / "l")
            (source / "x").rename(source / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for n in range(200):
            with contextlib.suppress(OSError):
                copy_tree(source, state / f"t{n}")
    finally:
        ended.set()
        thread.join()
    stolen = [p for n in range(200) for p in (state / f"t{n}").glob("[dlx]/f") if not p.parent.is_symlink()]
    assert all(path.read_text() == "guest" for path in stolen)
    assert stolen


def racing(monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[], None]) -> None:
    """Let *act* happen once, right before the copy's next call of os.*call*, as a fast guest would."""
    real, is_done = getattr(os, call), [False]

    def raced(*args: Any, **named: Any) -> Any:
        if not is_done[0] and "dir_fd" in str(named.keys()):
            is_done[0] = True
            act()
        return real(*args, **named)

    monkeypatch.setattr(os, call, raced)


def test_a_link_in_place_of_a_copied_file_keeps_the_mode_of_what_it_leads_to(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of files may be open on what is refreshed: chmod(2) would follow its link onto the host."""
    secret, source, target = state / "secret", state / "source", state / "target"
    secret.touch(0o600)
    source.mkdir()
    (source / "f").touch(0o666)
    (source / "f").chmod(0o4777)

    def swap() -> None:
        (target / "f").unlink()
        (target / "f").symlink_to(secret)

    racing(monkeypatch, "chown", swap)
    copy_tree(source, target)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_link_in_place_of_a_folder_lends_no_file_of_the_hosts(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hard link to a file of the host's in a guest's volume would be the guest's."""
    outside, source, target = state / "outside", state / "source", state / "target"
    outside.mkdir()
    (outside / "f").write_text("host")
    (source / "a").mkdir(parents=True)
    (source / "a/f").write_text("guest")
    os.link(source / "a/f", source / "z")

    def swap() -> None:
        (target / "a").rename(target / "gone")
        (target / "a").symlink_to(outside)

    racing(monkeypatch, "link", swap)
    with contextlib.suppress(OSError):
        copy_tree(source, target)
    assert (outside / "f").stat().st_nlink == 1


def test_a_link_in_place_of_a_folder_leads_no_removal_to_the_host(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, source, target = state / "outside", state / "source", state / "target"
    (outside / "b").mkdir(parents=True)
    (source / "a").mkdir(parents=True)
    (target / "a/b").mkdir(parents=True)
    real = subprocess.run

    def raced(*args: Any, **named: Any) -> Any:
        (target / "a").rename(target / "gone")
        (target / "a").symlink_to(outside)
        return real(*args, **named)

    monkeypatch.setattr(subprocess, "run", raced)
    with contextlib.suppress(OSError):
        copy_tree(source, target)
    assert (outside / "b").exists()
    assert not (target / "gone/b").exists()
