"""What the lvm driver asks of its tools, and how it reads their answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import Invalid
from services.runtime.storage import lvm_plan
from services.runtime.storage.lvm_plan import Place, place_of

DISKS = Path("/state/disks")


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({}, Place("p", "podium-p", DISKS / "p.lvm", is_file=True)),
        ({"lvm.vg_name": "g", "lvm.thinpool_name": "t"}, Place("g", "t", DISKS / "p.lvm", is_file=True)),
        ({"source": "/dev/sdb"}, Place("p", "podium-p", Path("/dev/sdb"))),
        ({"source": "group"}, Place("group", "podium-p")),
    ],
)
def test_a_source_is_a_file_a_device_or_a_group(config: dict[str, str], place: Place) -> None:
    assert place_of("p", config, DISKS) == place


@pytest.mark.parametrize(
    "config",
    [{"source": "-f"}, {"source": "a/b"}, {"source": "g", "lvm.vg_name": "h"}, {"lvm.thinpool_name": "-x"}],
)
def test_names_that_tools_could_take_for_something_else_are_refused(config: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        place_of("p", config, DISKS)


@pytest.mark.parametrize("name", ["containers/a", "custom/new:a-b", "containers/old:a"])
def test_names_go_there_and_back(name: str) -> None:
    assert lvm_plan.name_of(lvm_plan.volume_name(name)) == name
    assert not set(lvm_plan.volume_name(name)) & set("/:")


def test_what_is_no_volume_has_no_name() -> None:
    assert {lvm_plan.name_of(name) for name in ("podium-p", "podium-p.root", "root", "containers_")} == {""}


def test_sizes_are_whole_extents_and_only_grow() -> None:
    assert lvm_plan.growth(10, 4, 4) == 12
    assert lvm_plan.growth(11, 12, 4) == 0
    with pytest.raises(Invalid, match="only grow"):
        lvm_plan.growth(8, 12, 4)


def test_tables_are_read() -> None:
    assert lvm_plan.rows("  a,,4096,12.50,x,y\n\n") == [["a", "", "4096", "12.50", "x", "y"]]
    assert lvm_plan.held("4096", "12.50") == 512
    assert lvm_plan.held("4096", "") == 0


def test_what_a_host_lacks_is_named() -> None:
    assert lvm_plan.lacks({"lvm": "/sbin/lvm"}, has_module=True) == []
    assert lvm_plan.lacks({"lvm": None}, has_module=False) == [
        'Required tool "lvm" is missing',
        'the kernel module "dm_thin_pool" is not loaded',
    ]


def test_a_snapshot_of_xfs_can_be_mounted_beside_its_origin() -> None:
    assert "nouuid" in lvm_plan.mount("xfs", Path("/dev/g/v"), Path("/t"))[4]
    assert "nouuid" not in lvm_plan.mount("ext4", Path("/dev/g/v"), Path("/t"))[4]
