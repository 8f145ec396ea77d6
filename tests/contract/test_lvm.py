"""The lvm driver: on a model of its tools with real file systems, and on the tools where a host has them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.errors import Invalid, PodiumError, WrongState
from services.runtime.storage import folders, lvm, lvm_plan
from services.runtime.storage.lvm import LvmDriver
from services.runtime.storage.mounted import mounted_below
from services.runtime.storage.tree import remove_tree
from tests.fakes.lvm_model import LvmModel

MIB = 1 << 20
CONFIG = {"size": "512MiB", "lvm.vg_name": "podium-test", "volume.size": "32MiB"}


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="podium-lvm-", dir="/var/tmp"))
    yield folder
    remove_tree(folder)


@pytest.fixture(params=["model", "real"])
def made(request: pytest.FixtureRequest, state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LvmDriver]:
    if request.param == "real":
        if why := lvm.unavailable_because():
            pytest.skip(why)
        yield LvmDriver(state)
        return
    model = LvmModel(state / "dev", state / "backing")
    monkeypatch.setattr(lvm, "run", model.run)
    monkeypatch.setattr(lvm_plan, "DEVICES", state / "dev")
    yield LvmDriver(state)
    for target in mounted_below(state):
        folders.run(["umount", str(target)])
    model.close()


@pytest.fixture
async def driver(made: LvmDriver, state: Path) -> AsyncIterator[LvmDriver]:
    filled = await made.create_pool("p", CONFIG)
    yield made
    for _ in range(2):
        await made.delete_pool("p", filled)
    assert list((state / "disks").iterdir()) == []
    assert not (state / "pools/p").exists()


async def with_text(driver: LvmDriver, id: str, text: str, size: int = 0) -> Path:
    volume = await driver.ensure_volume("p", id, size=size)
    (volume / "upper" / "file").write_text(text)
    return volume


def text(volume: Path) -> str:
    return (volume / "upper" / "file").read_text()


async def test_a_pool_is_closed_and_opened_with_its_volumes(driver: LvmDriver, state: Path) -> None:
    filled = {**CONFIG, "source": str(state / "disks/p.lvm")}
    volume = await with_text(driver, "c1", "x")
    assert sorted(path.name for path in volume.iterdir()) == ["upper", "work"]
    space = await driver.space("p")
    assert 0 < space.used < space.total
    await driver.close_pool("p", filled)
    with pytest.raises(WrongState, match="recover"):
        await driver.check_pool("p", CONFIG)
    for _ in range(2):
        await driver.ensure_open("p", filled)
    assert text(volume) == "x"
    assert set(await driver.usage("p", ["c1", "none"])) == {"c1"}
    await driver.settle("p")


async def test_copies_are_of_their_own_and_a_volume_is_restored(driver: LvmDriver) -> None:
    volume = await with_text(driver, "c1", "x")
    snapshot = await driver.clone_volume("p", "s1", volume)
    for _ in range(2):
        (volume / "upper" / "file").write_text("spoilt")
        assert await driver.replace_volume("p", "c1", snapshot) == volume
        assert (text(volume), text(snapshot)) == ("x", "x")
    await driver.delete_volume("p", "c1")
    assert text(snapshot) == "x"
    assert await driver.volumes("p") == ["s1"]


def may_resize() -> bool:
    """Whether we may let a mounted ext4 grow: CAP_SYS_RESOURCE, number 24."""
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) >> 24 & 1)


async def test_a_volume_never_shrinks(driver: LvmDriver) -> None:
    await with_text(driver, "c1", "x", size=32 * MIB)
    for size in (32 * MIB, 0, 30 * MIB):
        await driver.set_quota("p", "c1", size)
    with pytest.raises(Invalid, match="only grow"):
        await driver.set_quota("p", "c1", 16 * MIB)


@pytest.mark.skipif(not may_resize(), reason="CAP_SYS_RESOURCE is missing: ext4 would not grow")
async def test_a_volume_grows_while_it_is_used(driver: LvmDriver) -> None:
    volume = await with_text(driver, "c1", "x", size=32 * MIB)
    with pytest.raises(OSError, match="No space"):
        (volume / "upper" / "big").write_bytes(os.urandom(48 * MIB))
    for _ in range(2):
        await driver.set_quota("p", "c1", 96 * MIB)
    (volume / "upper" / "big").write_bytes(os.urandom(48 * MIB))
    copied = await driver.clone_volume("p", "c2", volume, size=128 * MIB)
    found = os.statvfs(copied)
    assert found.f_blocks * found.f_frsize > 100 * MIB
    assert await driver.ensure_volume("p", "c1", size=96 * MIB)


async def test_what_somebody_else_made_is_refused_and_left(driver: LvmDriver, state: Path) -> None:
    with pytest.raises(Invalid, match="already"):
        await driver.check_pool("q", {"lvm.vg_name": "podium-test"})
    with pytest.raises(Invalid, match="no volume group"):
        await driver.check_pool("q", {"source": "podium-none"})
    config = {"source": "podium-test", "lvm.thinpool_name": "podium-p"}
    other = LvmDriver(state / "other")
    with pytest.raises(Invalid, match="there already"):
        await other.check_pool("p", config)
    await with_text(driver, "c1", "x")
    await other.undo_create("p", config)
    assert await driver.volumes("p") == ["c1"]


async def test_a_pool_keeps_its_names_and_its_volumes_their_size(driver: LvmDriver, state: Path) -> None:
    old = {**CONFIG, "source": str(state / "disks/p.lvm")}
    for _ in range(2):
        await driver.change_pool("p", old, {**old, "size": "1GiB", "volume.size": "64MiB"})
    with pytest.raises(Invalid, match="only grow"):
        await driver.change_pool("p", old, {**old, "volume.size": "16MiB"})
    with pytest.raises(PodiumError, match="cannot be changed"):
        await driver.change_pool("p", old, {**old, "lvm.thinpool_name": "x"})
