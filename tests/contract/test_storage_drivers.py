"""One contract for every storage driver, on the real kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from core.errors import Invalid, PodiumError, WrongState
from services.runtime.ports import StorageDriver, VolumeKind
from services.runtime.storage.drivers import available

CONFIG = {
    "dir": {},
    "btrfs": {"size": "512MiB"},
    "zfs": {"size": "512MiB"},
    "lvm": {"size": "2GiB", "volume.size": "256MiB"},
}
SOURCE = {"dir": "pools/p", "btrfs": "disks/p.img", "zfs": "disks/p.zfs", "lvm": "disks/p.lvm"}
MIB = 1 << 20


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="podium-storage-", dir="/var/tmp"))
    folder.chmod(0o711)
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


async def test_a_volume_holds_the_layers_of_an_overlay(driver: StorageDriver) -> None:
    volume = await driver.ensure_volume("p", "c1")
    assert sorted(p.name for p in volume.iterdir()) == ["upper", "work"]


async def test_making_a_volume_again_keeps_its_content(driver: StorageDriver) -> None:
    volume = await driver.ensure_volume("p", "c1")
    (volume / "upper" / "kept").write_text("x")
    assert await driver.ensure_volume("p", "c1") == volume
    assert (volume / "upper" / "kept").read_text() == "x"


async def test_a_volume_can_be_deleted_twice(driver: StorageDriver) -> None:
    volume = await driver.ensure_volume("p", "c1")
    (volume / "upper" / "deep" / "er").mkdir(parents=True)
    await driver.delete_volume("p", "c1")
    await driver.delete_volume("p", "c1")
    assert not volume.exists()
    assert await driver.volumes("p") == []


async def test_volumes_are_listed(driver: StorageDriver) -> None:
    for id in ("b", "a"):
        await driver.ensure_volume("p", id)
    assert await driver.volumes("p") == ["a", "b"]


async def test_opening_an_open_pool_changes_nothing(driver: StorageDriver, state: Path) -> None:
    volume = await driver.ensure_volume("p", "c1")
    await driver.ensure_open("p", {"source": str(state / SOURCE[driver.name])})
    assert volume.exists()


async def test_space_is_known(driver: StorageDriver) -> None:
    space = await driver.space("p")
    assert 0 < space.used < space.total


async def test_users_of_the_host_cannot_list_the_pool(driver: StorageDriver, state: Path) -> None:
    await driver.ensure_volume("p", "c1")
    for folder in (state / "pools", state / "pools/p", *(state / "pools/p" / kind for kind in VolumeKind)):
        assert folder.stat().st_mode & 0o066 == 0


async def test_deleting_a_pool_leaves_nothing(driver: StorageDriver, state: Path) -> None:
    await driver.ensure_volume("p", "c1")
    await driver.delete_pool("p", {"source": str(state / SOURCE[driver.name])})
    assert not (state / "pools/p").exists()
    assert str(state) not in Path("/proc/self/mounts").read_text()
    assert not (state / SOURCE[driver.name]).exists()


async def test_a_bound_is_kept_by_drivers_that_say_so(driver: StorageDriver) -> None:
    volume = await driver.ensure_volume("p", "c1", size=16 * MIB)
    assert driver.has_quotas == (driver.name != "dir")
    if not driver.has_quotas:
        (volume / "upper" / "big").write_bytes(bytes(20 * MIB))
        return
    with pytest.raises(OSError, match="quota"):
        (volume / "upper" / "big").write_bytes(os.urandom(20 * MIB))
    await driver.set_quota("p", "c1", 0)
    (volume / "upper" / "big").write_bytes(os.urandom(20 * MIB))


async def test_drivers_with_quotas_tell_what_a_volume_uses(driver: StorageDriver) -> None:
    volume = await driver.ensure_volume("p", "c1")
    with (volume / "upper" / "some").open("wb") as file:
        file.write(os.urandom(8 * MIB))
        os.fsync(file.fileno())
    os.sync()
    await driver.ensure_volume("p", "c2")
    one, many = await driver.usage("p", ["c1"]), await driver.usage("p", ["c2", "c1", "none"])
    if driver.name == "dir":
        assert one == many == {}
        return
    assert set(one) == {"c1"}
    assert set(many) == {"c1", "c2"}
    assert 8 * MIB <= one["c1"] == many["c1"] < 10 * MIB
    assert many["c2"] < 1 * MIB


@pytest.mark.parametrize("name", ["btrfs", "zfs", "lvm"])
async def test_a_pool_is_open_again_after_a_reboot(state: Path, name: str) -> None:
    drivers, reasons = available(state)
    if name in reasons:
        pytest.skip(reasons[name])
    driver = drivers[name]
    filled = await driver.create_pool("p", CONFIG[name])
    volume = await driver.ensure_volume("p", "c1")
    (volume / "upper" / "kept").write_text("x")
    subprocess.run(["umount", "--recursive", str(state / "pools/p")], check=True)
    await driver.ensure_open("p", filled)
    assert (volume / "upper" / "kept").read_text() == "x"
    await driver.delete_pool("p", filled)


async def test_a_source_that_is_no_btrfs_is_refused_and_left_alone(state: Path) -> None:
    drivers, reasons = available(state)
    if "btrfs" in reasons:
        pytest.skip(reasons["btrfs"])
    other = state / "other"
    other.mkdir()
    (other / "mine").write_text("x")
    with pytest.raises(Invalid):
        await drivers["btrfs"].create_pool("p", {"source": str(other)})
    await drivers["btrfs"].delete_pool("p", {"source": str(other)})
    assert (other / "mine").read_text() == "x"


async def test_drivers_that_we_lack_are_named_with_the_reason(state: Path) -> None:
    drivers, reasons = available(state)
    assert {"cephfs"} <= set(reasons)
    assert all((name in drivers) != (name in reasons) for name in ("btrfs", "ceph", "zfs", "lvm"))
    assert all("no" in reason or "missing" in reason for reason in reasons.values())


async def test_a_pool_that_nothing_is_recorded_of_is_not_made_anew(
    driver: StorageDriver, state: Path
) -> None:
    """Else who lost the state would lose the pool with the next start: making it fails, and is taken back."""
    volume = await driver.ensure_volume("p", "c1")
    source = {"source": str(state / SOURCE[driver.name])}
    await driver.close_pool("p", source)
    with pytest.raises(WrongState, match="recover"):
        await driver.check_pool("p", {})
    await driver.ensure_open("p", source)
    assert volume.exists()


async def test_a_folder_of_the_users_own_becomes_a_dir_pool_and_is_given_back_empty(state: Path) -> None:
    driver, folder = available(state)[0]["dir"], state / "mine"
    with pytest.raises(Invalid, match="doesn't exist"):
        await driver.check_pool("p", {"source": str(folder)})
    folder.mkdir(mode=0o750)
    (folder / "x").touch()
    with pytest.raises(Invalid, match="isn't empty"):
        await driver.check_pool("p", {"source": str(folder)})
    (folder / "x").unlink()
    await driver.check_pool("p", {"source": str(folder)})
    filled = await driver.create_pool("p", {"source": str(folder)})
    volume = await driver.ensure_volume("p", "c1")
    assert (folder / "containers/c1/upper").is_dir()
    subprocess.run(["umount", state / "pools/p"], check=True)
    await driver.ensure_open("p", filled)
    assert volume.exists()
    await driver.delete_pool("p", filled)
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o750, "its owner decides who may look into it"
    assert not (state / "pools/p").exists()


# --- btrfs only: sources of the user's own, quotas, nested subvolumes ----------------------------------


@pytest.fixture
def btrfs(state: Path) -> StorageDriver:
    drivers, reasons = available(state)
    if "btrfs" in reasons:
        pytest.skip(reasons["btrfs"])
    return drivers["btrfs"]


@pytest.fixture
def device(state: Path) -> Iterator[Path]:
    """A blank block device."""
    disk = state / "device.img"
    with disk.open("wb") as file:
        file.truncate(256 * MIB)
    made = subprocess.run(["losetup", "--find", "--show", disk], check=True, capture_output=True, text=True)
    path = Path(made.stdout.strip())
    yield path
    subprocess.run(["umount", "-q", str(state / "pools/p")], check=False)
    subprocess.run(["losetup", "--detach", path], check=False)


@pytest.fixture
def mine(state: Path, device: Path) -> Iterator[Path]:
    """A folder of the user's own on an existing btrfs."""
    subprocess.run(["mkfs.btrfs", "-q", device], check=True)
    folder = state / "mine"
    folder.mkdir()
    subprocess.run(["mount", device, folder], check=True)
    (folder / "kept").write_text("x")
    folder.chmod(0o750)
    yield folder
    subprocess.run(["umount", "-q", str(state / "pools/p")], check=False)
    subprocess.run(["umount", "-q", folder], check=False)


async def test_a_pool_on_an_existing_btrfs_leaves_what_is_there(btrfs: StorageDriver, mine: Path) -> None:
    filled = await btrfs.create_pool("p", {"source": str(mine)})
    volume = await btrfs.ensure_volume("p", "c1", size=16 * MIB)
    with pytest.raises(OSError, match="quota"):
        (volume / "upper" / "big").write_bytes(os.urandom(20 * MIB))
    await btrfs.delete_pool("p", filled)
    assert [p.name for p in mine.iterdir()] == ["kept"]
    assert mine.stat().st_mode & 0o777 == 0o750, "its owner decides who may look into it"


async def test_a_blank_device_becomes_a_pool_that_is_open_again_after_a_reboot(
    btrfs: StorageDriver, device: Path, state: Path
) -> None:
    filled = await btrfs.create_pool("p", {"source": str(device)})
    assert filled == {"source": str(device), "volatile.initial_source": str(device)}
    volume = await btrfs.ensure_volume("p", "c1")
    (volume / "upper" / "kept").write_text("x")
    subprocess.run(["umount", str(state / "pools/p")], check=True)
    await btrfs.ensure_open("p", filled)
    assert (volume / "upper" / "kept").read_text() == "x"
    await btrfs.delete_pool("p", filled)
    assert not (state / "pools/p").exists()


async def test_a_device_that_holds_something_else_is_refused_and_left_alone(
    btrfs: StorageDriver, device: Path
) -> None:
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    with pytest.raises(Invalid, match="ext4"):
        await btrfs.create_pool("p", {"source": str(device)})
    await btrfs.undo_create("p", {"source": str(device)})
    assert subprocess.run(["blkid", "-p", device], capture_output=True, check=True).stdout.count(b"ext4")


async def test_a_source_with_containers_of_another_pool_is_refused_and_kept(
    btrfs: StorageDriver, mine: Path
) -> None:
    """Taking back the creation must not delete what some other Podium keeps there."""
    (mine / "containers" / "theirs").mkdir(parents=True)
    with pytest.raises(Invalid, match="containers already"):
        await btrfs.create_pool("p", {"source": str(mine)})
    await btrfs.undo_create("p", {"source": str(mine)})
    assert (mine / "containers" / "theirs").is_dir()


@pytest.mark.parametrize("source", ["/nowhere/at/all", "relative", "-o"])
async def test_a_source_that_is_not_there_is_refused(btrfs: StorageDriver, source: str) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        await btrfs.create_pool("p", {"source": source})


@pytest.mark.parametrize("made", ["nothing", "file", "folder", "all"])
async def test_any_half_of_a_creation_can_be_taken_back(btrfs: StorageDriver, state: Path, made: str) -> None:
    """The process may have died anywhere in it; what is recorded then is only what was asked for."""
    if made == "file":
        (state / "disks/p.img").write_bytes(b"")
    elif made == "folder":
        (state / "pools/p").mkdir()
    elif made == "all":
        await btrfs.create_pool("p", CONFIG["btrfs"])
    for _ in range(2):
        await btrfs.undo_create("p", CONFIG["btrfs"])
    assert not (state / "pools/p").exists()
    assert not (state / "disks/p.img").exists()


async def test_a_pool_in_a_file_grows_while_it_is_used(btrfs: StorageDriver, state: Path) -> None:
    filled = await btrfs.create_pool("p", {"size": "128MiB", "btrfs.mount_options": "compress=zstd"})
    assert "compress=zstd" in Path("/proc/self/mounts").read_text()
    wanted = {**filled, "size": "256MiB", "btrfs.mount_options": "noatime"}
    for _ in range(2):
        await btrfs.change_pool("p", filled, wanted)
    assert (await btrfs.space("p")).total == 256 * MIB
    mounts = [
        line for line in Path("/proc/self/mounts").read_text().splitlines() if f"{state}/pools/p" in line
    ]
    assert "nosuid,nodev,noatime" in mounts[0]
    with pytest.raises(Invalid, match="only grow"):
        await btrfs.change_pool("p", wanted, {**wanted, "size": "128MiB"})
    await btrfs.delete_pool("p", wanted)


async def test_a_pool_that_was_made_read_only_is_made_writable_again_and_goes(
    btrfs: StorageDriver, state: Path
) -> None:
    filled = await btrfs.create_pool("p", {"size": "128MiB"})
    volume = await btrfs.ensure_volume("p", "c1")
    read_only = {**filled, "btrfs.mount_options": "ro"}
    await btrfs.change_pool("p", filled, read_only)
    with pytest.raises(OSError, match="Read-only"):
        (volume / "upper" / "x").touch()
    await btrfs.change_pool("p", read_only, filled)
    (volume / "upper" / "x").touch()
    await btrfs.change_pool("p", filled, read_only)
    await btrfs.delete_pool("p", read_only)
    assert not (state / "disks/p.img").exists()


async def test_a_bound_grows_and_shrinks_under_a_volume_in_use(btrfs: StorageDriver) -> None:
    filled = await btrfs.create_pool("p", CONFIG["btrfs"])
    volume = await btrfs.ensure_volume("p", "c1", size=16 * MIB)
    with (volume / "upper" / "log").open("wb") as file:
        with pytest.raises(OSError, match="quota"):
            grow(file, 20 * MIB)
        await btrfs.set_quota("p", "c1", 64 * MIB)
        grow(file, 20 * MIB)
        await btrfs.set_quota("p", "c1", 8 * MIB)
        with pytest.raises(OSError, match="quota"):
            grow(file, MIB)
    await btrfs.delete_pool("p", filled)


async def test_a_volume_above_its_bound_can_be_copied_and_enlarged(btrfs: StorageDriver) -> None:
    """btrfs refuses every change that is asked of a full subvolume, even that of its bound."""
    filled = await btrfs.create_pool("p", CONFIG["btrfs"])
    volume = await btrfs.ensure_volume("p", "c1", size=64 * MIB)
    (volume / "work" / "work").mkdir()
    with (volume / "upper" / "log").open("wb") as file:
        grow(file, 20 * MIB)
        await btrfs.set_quota("p", "c1", 8 * MIB)
        copied = await btrfs.clone_volume("p", "c2", volume, size=8 * MIB)
        assert (copied / "upper" / "log").stat().st_size == 20 * MIB
        await btrfs.ensure_volume("p", "c1", size=64 * MIB)
        grow(file, MIB)
    await btrfs.delete_pool("p", filled)


def grow(file: BinaryIO, size: int) -> None:
    """Write *size* bytes that do not compress, through to the disk."""
    left = size
    while left:
        left -= os.write(file.fileno(), os.urandom(min(left, MIB)))
    os.fsync(file.fileno())


async def test_a_volume_goes_however_deep_the_subvolumes_in_it_lie(btrfs: StorageDriver) -> None:
    """Guests decide how deep their folders go: deeper than Python calls itself, and than any path is long."""
    filled = await btrfs.create_pool("p", CONFIG["btrfs"])
    volume = await btrfs.ensure_volume("p", "v")
    subprocess.run(["btrfs", "subvolume", "create", volume / "outer"], check=True, capture_output=True)
    at = os.open(volume / "outer", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(2200):
        os.mkdir("dd", dir_fd=at)
        inner = os.open("dd", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = inner
    argv = ["btrfs", "subvolume", "create", f"/proc/{os.getpid()}/fd/{at}/inner"]
    subprocess.run(argv, check=True, capture_output=True)
    os.close(at)

    await btrfs.delete_volume("p", "v")

    assert not volume.exists()
    await btrfs.delete_pool("p", filled)


async def test_a_volume_goes_with_the_subvolumes_made_inside_it(btrfs: StorageDriver, state: Path) -> None:
    filled = await btrfs.create_pool("p", CONFIG["btrfs"])
    volume = await btrfs.ensure_volume("p", "c1")
    for path in ("upper/a", "upper/a/b", "upper/c"):
        subprocess.run(["btrfs", "subvolume", "create", volume / path], check=True, capture_output=True)
    (volume / "upper/a/b/file").write_text("x")
    await btrfs.delete_volume("p", "c1")
    shown = subprocess.run(["btrfs", "subvolume", "list", state / "pools/p"], check=True, capture_output=True)
    assert shown.stdout == b""
    await btrfs.delete_pool("p", filled)
