"""One contract for every storage driver, on the real kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.errors import Invalid, PodiumError, Unsupported
from services.runtime.ports import StorageDriver
from services.runtime.storage.drivers import available

CONFIG = {"dir": {}, "btrfs": {"size": "512MiB"}}
MIB = 1 << 20


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="podium-storage-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder
    for pool in (folder / "pools").glob("*"):
        subprocess.run(["umount", "-q", str(pool)], check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["dir", "btrfs"])
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
    source = state / "disks/p.img" if driver.name == "btrfs" else state / "pools/p"
    await driver.ensure_open("p", {"source": str(source)})
    assert volume.exists()


async def test_space_is_known(driver: StorageDriver) -> None:
    space = await driver.space("p")
    assert 0 < space.used < space.total


async def test_users_of_the_host_cannot_list_the_pool(driver: StorageDriver, state: Path) -> None:
    await driver.ensure_volume("p", "c1")
    for folder in (state / "pools", state / "pools/p", state / "pools/p/containers"):
        assert folder.stat().st_mode & 0o066 == 0


async def test_deleting_a_pool_leaves_nothing(driver: StorageDriver, state: Path) -> None:
    await driver.ensure_volume("p", "c1")
    source = str(state / ("disks/p.img" if driver.name == "btrfs" else "pools/p"))
    await driver.delete_pool("p", {"source": source})
    assert not (state / "pools/p").exists()
    assert str(state) not in Path("/proc/self/mounts").read_text()
    assert not (state / "disks/p.img").exists()


async def test_a_bound_is_kept_or_refused_but_never_ignored(driver: StorageDriver) -> None:
    if driver.name == "dir":
        with pytest.raises(Unsupported):
            await driver.ensure_volume("p", "c1", size=16 * MIB)
        return
    volume = await driver.ensure_volume("p", "c1", size=16 * MIB)
    with pytest.raises(OSError, match="quota"):
        (volume / "upper" / "big").write_bytes(os.urandom(20 * MIB))
    await driver.set_quota("p", "c1", 0)
    (volume / "upper" / "big").write_bytes(os.urandom(20 * MIB))


async def test_btrfs_tells_what_a_volume_uses(driver: StorageDriver) -> None:
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


async def test_a_pool_is_open_again_after_a_reboot(state: Path) -> None:
    drivers, reasons = available(state)
    if "btrfs" in reasons:
        pytest.skip(reasons["btrfs"])
    driver = drivers["btrfs"]
    filled = await driver.create_pool("p", CONFIG["btrfs"])
    volume = await driver.ensure_volume("p", "c1")
    (volume / "upper" / "kept").write_text("x")
    subprocess.run(["umount", str(state / "pools/p")], check=True)
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
    _, reasons = available(state)
    assert {"zfs", "lvm", "ceph"} <= set(reasons)
    assert all("no" in reason for reason in reasons.values())
