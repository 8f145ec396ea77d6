"""The ceph driver: on a model of its tools with real file systems. A cluster is no thing of one host, so
none is made for a test: who has one gives the name of an OSD pool for tests as PODIUM_TEST_OSD_POOL."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.errors import Invalid, PodiumError, WrongState
from services.runtime.storage import ceph, folders
from services.runtime.storage.ceph import CephDriver
from services.runtime.storage.mounted import mounted_below
from services.runtime.storage.tree import remove_tree
from tests.contract.test_lvm import may_resize
from tests.fakes.ceph_model import CephModel

MIB = 1 << 20
CONFIG = {"volume.size": "32MiB", "ceph.osd.pool_name": os.environ.get("PODIUM_TEST_OSD_POOL", "podium-test")}


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="podium-ceph-", dir="/var/tmp"))
    yield folder
    remove_tree(folder)


@pytest.fixture
def model(state: Path) -> CephModel:
    return CephModel(state / "backing")


@pytest.fixture(params=["model", "real"])
def made(
    request: pytest.FixtureRequest, state: Path, model: CephModel, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CephDriver]:
    if request.param == "real":
        if why := ceph.unavailable_because():
            pytest.skip(why)
        if "PODIUM_TEST_OSD_POOL" not in os.environ:
            pytest.skip("PODIUM_TEST_OSD_POOL names no OSD pool for tests")
        yield CephDriver(state)
        return
    monkeypatch.setattr(ceph, "run", model.run)
    yield CephDriver(state)
    for target in mounted_below(state):
        folders.run(["umount", str(target)])
    model.close()


@pytest.fixture
async def driver(made: CephDriver, state: Path, model: CephModel) -> AsyncIterator[CephDriver]:
    filled = await made.create_pool("p", CONFIG)
    yield made
    for _ in range(2):
        await made.delete_pool("p", filled)
    assert not (state / "pools/p").exists()
    assert (model.images, model.pools) == ({}, {})


async def with_text(driver: CephDriver, id: str, text: str, size: int = 0) -> Path:
    volume = await driver.ensure_volume("p", id, size=size)
    (volume / "upper" / "file").write_text(text)
    return volume


def text(volume: Path) -> str:
    return (volume / "upper" / "file").read_text()


async def test_a_pool_is_closed_and_opened_with_its_volumes(driver: CephDriver) -> None:
    volume = await with_text(driver, "c1", "x")
    space = await driver.space("p")
    assert 0 < space.used < space.total
    await driver.close_pool("p", CONFIG)
    assert not volume.exists()
    with pytest.raises(WrongState, match="recover"):
        await driver.check_pool("p", CONFIG)
    for _ in range(2):
        await driver.ensure_open("p", CONFIG)
    assert text(volume) == "x"
    assert set(await driver.usage("p", ["c1", "none"])) == {"c1"}
    await driver.settle("p")


@pytest.mark.parametrize("clones", ["true", "false"])
async def test_copies_are_of_their_own_and_outlive_their_origin(driver: CephDriver, clones: str) -> None:
    await driver.change_pool("p", CONFIG, {**CONFIG, "ceph.rbd.clone_copy": clones})
    volume = await with_text(driver, "c1", "x")
    snapshot = await driver.clone_volume("p", "s1", volume)
    for _ in range(2):
        (volume / "upper" / "file").write_text("spoilt")
        assert await driver.replace_volume("p", "c1", snapshot) == volume
        assert (text(volume), text(snapshot)) == ("x", "x")
    await driver.delete_volume("p", "c1")
    assert text(snapshot) == "x"
    assert await driver.volumes("p") == ["s1"]


async def test_what_nothing_needs_goes_with_the_last_that_needed_it(
    driver: CephDriver, model: CephModel
) -> None:
    volume = await with_text(driver, "c1", "x")
    for number in range(3):
        volume = await driver.clone_volume("p", f"s{number}", volume)
    await driver.delete_volume("p", "c1")
    await driver.delete_volume("p", "s0")
    assert text(volume) == "x"
    for number in (2, 1):
        await driver.delete_volume("p", f"s{number}")
    assert len(model.images) <= 1, "more than the root is left"


async def test_a_volume_never_shrinks(driver: CephDriver) -> None:
    await with_text(driver, "c1", "x", size=32 * MIB)
    for size in (32 * MIB, 0):
        await driver.set_quota("p", "c1", size)
    with pytest.raises(Invalid, match="only grow"):
        await driver.set_quota("p", "c1", 16 * MIB)


@pytest.mark.skipif(not may_resize(), reason="CAP_SYS_RESOURCE is missing: ext4 would not grow")
async def test_a_volume_grows_while_it_is_used(driver: CephDriver) -> None:
    volume = await with_text(driver, "c1", "x", size=32 * MIB)
    for _ in range(2):
        await driver.set_quota("p", "c1", 96 * MIB)
    (volume / "upper" / "big").write_bytes(os.urandom(48 * MIB))


async def test_what_another_host_made_is_refused_and_left(driver: CephDriver, state: Path) -> None:
    await with_text(driver, "c1", "x")
    other = CephDriver(state / "other")
    with pytest.raises(WrongState, match="recover"):
        await other.check_pool("p", CONFIG)
    with pytest.raises(WrongState, match="another host's"):
        await other.ensure_open("p", CONFIG)
    await other.undo_create("p", CONFIG)
    assert await driver.volumes("p") == ["c1"]


async def test_an_osd_pool_of_somebody_else_stays(made: CephDriver, model: CephModel) -> None:
    if vars(ceph)["run"] != model.run:
        pytest.skip("makes OSD pools of its own")
    model.pools |= {"theirs": {"rbd": {}}, "files": {"cephfs": {}}}
    with pytest.raises(Invalid, match="used for cephfs"):
        await made.check_pool("p", {"source": "files"})
    filled = await made.create_pool("p", {"source": "theirs"})
    await made.delete_pool("p", filled)
    assert (set(model.pools), model.images) == ({"theirs", "files"}, {})


@pytest.mark.parametrize("step", range(4, 18))
async def test_a_pool_that_died_while_it_was_made_is_taken_back(
    made: CephDriver, model: CephModel, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    if vars(ceph)["run"] != model.run:
        pytest.skip("counts the steps of the model")
    model.pools["theirs"] = {"rbd": {}}
    config, left = {"source": "theirs"}, iter(range(step))

    def dying(argv: list[str], *, timeout_s: int = 120) -> str:
        if next(left, None) is None:
            raise WrongState("DIED", "It died here")
        return model.run(argv, timeout_s=timeout_s)

    monkeypatch.setattr(ceph, "run", dying)
    with pytest.raises(WrongState, match="died"):
        await made.create_pool("p", config)
    monkeypatch.setattr(ceph, "run", model.run)
    for _ in range(2):
        await made.undo_create("p", config)
    assert model.images == {}
    await made.delete_pool("p", await made.create_pool("p", config))


async def test_a_pool_keeps_its_names(driver: CephDriver) -> None:
    with pytest.raises(PodiumError, match="cannot be changed"):
        await driver.change_pool("p", CONFIG, {**CONFIG, "ceph.osd.pool_name": "x"})
