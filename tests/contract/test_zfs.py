"""The zfs driver: on a model of its tools, and on the real ones where the host has them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.errors import Invalid, PodiumError, WrongState
from services.runtime.storage import folders, zfs
from services.runtime.storage.mounted import mounted_below
from services.runtime.storage.tree import remove_tree
from services.runtime.storage.zfs import ZfsDriver
from tests.fakes.zfs_model import ZfsModel

CONFIG = {"size": "512MiB", "zfs.pool_name": "podium-test"}
MIB = 1 << 20


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="podium-zfs-", dir="/var/tmp"))
    yield folder
    for target in mounted_below(folder):
        folders.run(["umount", str(target)])
    remove_tree(folder)


@pytest.fixture(params=["model", "real"])
def made(request: pytest.FixtureRequest, state: Path, monkeypatch: pytest.MonkeyPatch) -> ZfsDriver:
    if request.param == "model":
        monkeypatch.setattr(zfs, "run", ZfsModel(state / "backing").run)
    elif why := zfs.unavailable_because():
        pytest.skip(why)
    return ZfsDriver(state)


@pytest.fixture
async def driver(made: ZfsDriver) -> AsyncIterator[ZfsDriver]:
    await made.check_pool("p", CONFIG)
    filled = await made.create_pool("p", CONFIG)
    yield made
    with contextlib.suppress(PodiumError, OSError):
        await made.delete_pool("p", filled)


async def with_text(driver: ZfsDriver, id: str, text: str) -> Path:
    volume = await driver.ensure_volume("p", id, size=64 * MIB)
    (volume / "upper" / "file").write_text(text)
    return volume


def text(volume: Path) -> str:
    return (volume / "upper" / "file").read_text()


def left(driver: ZfsDriver) -> str:
    """Return the snapshots that there are."""
    return zfs.run(["zfs", "list", "-H", "-p", "-t", "snapshot", "-o", "name,clones", "-r", "podium-test"])


async def test_a_pool_in_a_file_is_made_closed_opened_and_deleted(driver: ZfsDriver, state: Path) -> None:
    filled = {**CONFIG, "source": str(state / "disks/p.zfs")}
    volume = await with_text(driver, "c1", "x")
    space = await driver.space("p")
    assert 0 < space.used < space.total
    for _ in range(2):
        await driver.close_pool("p", filled)
    assert not volume.exists()
    with pytest.raises(WrongState, match="not open"):
        await driver.volumes("p")
    with pytest.raises(WrongState, match="recover"):
        await driver.check_pool("p", CONFIG)
    for _ in range(2):
        await driver.ensure_open("p", filled)
    assert text(volume) == "x"
    for _ in range(2):
        await driver.delete_pool("p", filled)
    assert list((state / "disks").iterdir()) == []
    assert not (state / "pools/p").exists()


async def test_each_copy_outlives_what_it_was_made_of(driver: ZfsDriver) -> None:
    """Snapshots hang on each other, in whichever order they were made; none is left when all are gone."""
    first = await with_text(driver, "c1", "x")
    second = await driver.clone_volume("p", "c2", first, size=64 * MIB)
    (first / "upper" / "file").write_text("y")
    third = await driver.clone_volume("p", "c3", first)
    fourth = await driver.clone_volume("p", "c4", second)
    await driver.delete_volume("p", "c1")
    await driver.delete_volume("p", "c2")
    assert (text(third), text(fourth)) == ("y", "x")
    assert await driver.volumes("p") == ["c3", "c4"]
    await driver.delete_volume("p", "c4")
    await driver.delete_volume("p", "c3")
    assert await driver.volumes("p") == []
    assert left(driver) == ""


async def test_a_volume_is_restored_again_and_again(driver: ZfsDriver) -> None:
    volume = await with_text(driver, "c1", "as it was")
    snapshot = await driver.clone_volume("p", "s1", volume)
    for _ in range(3):
        (volume / "upper" / "file").write_text("spoilt")
        assert await driver.replace_volume("p", "c1", snapshot, size=64 * MIB) == volume
        assert text(volume) == "as it was"
    assert text(snapshot) == "as it was"
    for id in ("s1", "c1"):
        await driver.delete_volume("p", id)
    assert left(driver) == ""


async def test_a_bound_below_what_a_volume_holds_is_what_it_holds(driver: ZfsDriver) -> None:
    await with_text(driver, "c1", "x")
    for size in (1, 32 * MIB, 0):
        await driver.set_quota("p", "c1", size)
    assert set(await driver.usage("p", ["c1", "none"])) == {"c1"}
    await driver.settle("p")


async def test_what_somebody_else_made_is_refused_and_left(made: ZfsDriver, state: Path) -> None:
    """A pool below a dataset of the user's own takes nothing along but what is its."""
    await made.create_pool("p", CONFIG)
    zfs.run(["zfs", "create", "podium-test/mine"])
    with pytest.raises(Invalid, match="already"):
        await made.check_pool("q", {"zfs.pool_name": "podium-test"})
    with pytest.raises(Invalid, match="no zpool"):
        await made.check_pool("q", {"source": "podium-none/mine"})
    config = {"source": "podium-test/mine"}
    filled = await made.create_pool("q", config)
    await made.ensure_volume("q", "c1")
    other = ZfsDriver(state / "other")
    with pytest.raises(Invalid, match="another source"):
        await other.check_pool("r", config)
    await other.undo_create("r", config)
    assert await made.volumes("q") == ["c1"]
    for _ in range(2):
        await made.delete_pool("q", filled)
    assert "podium-test/mine\n" in zfs.run(
        ["zfs", "list", "-H", "-t", "filesystem", "-o", "name", "podium-test/mine"]
    )
    await made.delete_pool("p", CONFIG)


async def test_a_dataset_made_for_a_pool_goes_with_it(made: ZfsDriver) -> None:
    await made.create_pool("p", CONFIG)
    filled = await made.create_pool("q", {"source": "podium-test/new"})
    await made.delete_pool("q", filled)
    names = zfs.run(["zfs", "list", "-H", "-p", "-t", "filesystem", "-d", "1", "-o", "name", "podium-test"])
    assert names.split() == ["podium-test", "podium-test/podium"]
    await made.delete_pool("p", CONFIG)


async def test_a_pool_in_a_file_grows_and_never_shrinks(driver: ZfsDriver, state: Path) -> None:
    old = {**CONFIG, "source": str(state / "disks/p.zfs")}
    new = {**old, "size": "1GiB"}
    for _ in range(2):
        await driver.change_pool("p", old, new)
    assert (state / "disks/p.zfs").stat().st_size == 1 << 30
    with pytest.raises(Invalid, match="only grow"):
        await driver.change_pool("p", new, old)
    with pytest.raises(PodiumError, match="cannot be changed"):
        await driver.change_pool("p", new, {**new, "zfs.pool_name": "another"})
