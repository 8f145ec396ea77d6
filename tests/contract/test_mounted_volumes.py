"""What drivers share whose volumes are mounted, on the real kernel with folders as the volume manager."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from core.errors import WrongState
from services.runtime.ports import VolumeKind
from services.runtime.storage import folders
from services.runtime.storage.mounted import MountedDriver, mounted_below
from services.runtime.storage.tree import copy_tree, remove_tree


class Folders(MountedDriver):
    """A volume is a folder in <state>/kept, bound where it is seen. Step number *dies_at* is not done."""

    name, version = "folders", "1"

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.kept = state / "kept"
        for kind in VolumeKind:
            (self.kept / kind).mkdir(parents=True, exist_ok=True)
        self.bounds: dict[str, int] = {}
        self.dies_at = 0
        self._step = itertools.count(1)

    def open(self) -> None:
        self.folder("p").mkdir(exist_ok=True)
        self._show_all("p")

    def close(self) -> None:
        """As a boot does it: all that was mounted is not any more."""
        for target in mounted_below(self.folder("p")):
            folders.run(["umount", str(target)])

    def _count(self) -> None:
        if next(self._step) == self.dies_at:
            raise WrongState("DIED", "It died here")

    def arm(self, step: int) -> None:
        self._step, self.dies_at = itertools.count(1), step

    def _names(self, pool: str) -> set[str]:
        return {str(path.relative_to(self.kept)) for path in self.kept.glob("*/*")}

    def _create(self, pool: str, name: str, size: int) -> None:
        self._count()
        (self.kept / name).mkdir()

    def _copy(self, pool: str, source: str, name: str) -> None:
        self._count()
        copy_tree(self.kept / source, self.kept / name)

    def _rename(self, pool: str, old: str, new: str) -> None:
        self._count()
        (self.kept / old).rename(self.kept / new)

    def _destroy(self, pool: str, name: str) -> None:
        self._count()
        remove_tree(self.kept / name)

    def _limit(self, pool: str, name: str, size: int) -> None:
        self._count()
        self.bounds[name] = size

    def _mount(self, pool: str, name: str, target: Path) -> None:
        self._count()
        folders.mount(self.kept / name, target, "bind")


@pytest.fixture
def driver() -> Iterator[Folders]:
    state = Path(tempfile.mkdtemp(prefix="podium-mounted-", dir="/var/tmp"))
    made = Folders(state)
    made.open()
    yield made
    made.close()
    remove_tree(state)


def text(volume: Path) -> str:
    return (volume / "upper" / "file").read_text()


async def with_text(driver: Folders, id: str, content: str) -> Path:
    volume = await driver.ensure_volume("p", id, size=7)
    (volume / "upper" / "file").write_text(content)
    return volume


async def test_a_volume_is_made_whole_and_bounded(driver: Folders) -> None:
    volume = await with_text(driver, "c1", "x")
    assert await driver.ensure_volume("p", "c1", size=9) == volume
    assert text(volume) == "x"
    assert sorted(path.name for path in volume.iterdir()) == ["upper", "work"]
    assert volume.stat().st_mode & 0o777 == 0o700
    assert driver.bounds["containers/c1"] == 9
    assert await driver.volumes("p") == ["c1"]
    assert await driver.volumes("p", kind=VolumeKind.CUSTOM) == []


async def test_copies_are_volumes_of_their_own(driver: Folders, tmp_path: Path) -> None:
    source = await with_text(driver, "c1", "x")
    (source / "work" / "work").mkdir()
    copied = await driver.clone_volume("p", "c2", source)
    (source / "upper" / "file").write_text("y")
    assert text(copied) == "x"
    assert list((copied / "work").iterdir()) == []
    assert text(await driver.clone_volume("p", "c2", source)) == "x", "one that is there stays"
    assert text(await driver.refresh_volume("p", "c2", source)) == "y"
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "file").write_text("from elsewhere")
    assert text(await driver.refresh_volume("p", "c2", tmp_path)) == "from elsewhere"
    assert await driver.volumes("p") == ["c1", "c2"]


async def test_volumes_are_there_again_after_a_reboot_and_can_go_twice(driver: Folders) -> None:
    volume = await with_text(driver, "c1", "x")
    driver.close()
    assert not (volume / "upper").exists()
    driver.open()
    assert text(volume) == "x"
    for _ in range(2):
        await driver.delete_volume("p", "c1")
    assert not volume.exists()
    assert await driver.volumes("p") == []


async def _again(driver: Folders) -> None:
    driver.close()
    driver.open()


async def _replaced(driver: Folders) -> None:
    await driver.replace_volume("p", "c1", driver.volume("p", "s1"))


@pytest.mark.parametrize("step", range(1, 9))
@pytest.mark.parametrize("then", [_again, _replaced])
async def test_what_dies_while_it_is_replaced_is_the_old_or_the_new_one(
    driver: Folders, step: int, then: Callable[[Folders], Awaitable[None]]
) -> None:
    volume = await with_text(driver, "c1", "old")
    await with_text(driver, "s1", "new")
    driver.arm(step)
    died = False
    try:
        await _replaced(driver)
    except WrongState:
        died = True
    driver.arm(0)
    assert died == (step < 8), "a step more or less than this test knows"
    assert await driver.volumes("p") == ["c1", "s1"]
    await then(driver)
    assert text(volume) == ("new" if then is _replaced else "old" if step < 5 else "new")
    assert driver._names("p") == {"containers/c1", "containers/s1"}


@pytest.mark.parametrize("step", range(1, 6))
async def test_what_dies_while_it_is_made_is_absent_or_whole(driver: Folders, step: int) -> None:
    driver.arm(step)
    with pytest.raises(WrongState):
        await driver.ensure_volume("p", "c1")
    driver.arm(0)
    await _again(driver)
    for id in await driver.volumes("p"):
        assert sorted(path.name for path in driver.volume("p", id).iterdir()) == ["upper", "work"]
    assert await driver.volumes("p") == ([] if step < 5 else ["c1"])
    assert await driver.ensure_volume("p", "c1")
