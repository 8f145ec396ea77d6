"""What the zfs driver asks of its tools, and how it reads their answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import Invalid
from services.runtime.storage import zfs_plan
from services.runtime.storage.zfs_plan import Place, place_of

DISKS = Path("/state/disks")
TOOLS = {"zpool": "/sbin/zpool", "zfs": "/sbin/zfs"}


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({}, Place("p", DISKS / "p.zfs", is_file=True)),
        ({"zfs.pool_name": "mine"}, Place("mine", DISKS / "p.zfs", is_file=True)),
        ({"source": "/state/disks/p.zfs"}, Place("p", DISKS / "p.zfs", is_file=True)),
        ({"source": "/dev/sdb"}, Place("p", Path("/dev/sdb"))),
        ({"source": "tank"}, Place("tank")),
        ({"source": "tank/a/b", "zfs.pool_name": "tank/a/b"}, Place("tank/a/b")),
    ],
)
def test_a_source_is_a_file_a_device_a_zpool_or_a_dataset(config: dict[str, str], place: Place) -> None:
    assert place_of("p", config, DISKS) == place


@pytest.mark.parametrize(
    "config",
    [
        {"source": "-f"},
        {"source": "tank/-o"},
        {"source": "tank/../other"},
        {"source": "tank//a"},
        {"source": "tank@snapshot"},
        {"source": "tank", "zfs.pool_name": "other"},
        {"zfs.pool_name": "-n"},
        {"zfs.pool_name": "a b"},
    ],
)
def test_names_that_tools_could_take_for_something_else_are_refused(config: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        place_of("p", config, DISKS)


def test_what_is_ours_lies_below_what_was_named() -> None:
    place = Place("tank/a")
    assert (place.zpool, place.root, place.source) == ("tank", "tank/a/podium", "tank/a")
    made = zfs_plan.make_root(place, "/state/pools/p")
    assert made[:2] == ["zfs", "create"]
    assert made[-1] == "tank/a/podium"
    assert "mountpoint=legacy" in made
    assert "podium:pool=/state/pools/p" in made


def test_a_zpool_is_made_without_force_and_imported_from_where_it_lies() -> None:
    place = place_of("p", {}, DISKS)
    made = zfs_plan.make_zpool(place, "/state/pools/p")
    assert made[-2:] == ["p", "/state/disks/p.zfs"]
    assert "-f" not in made
    assert zfs_plan.import_zpool(place) == ["zpool", "import", "-N", "-d", "/state/disks", "p"]
    assert zfs_plan.import_zpool(Place("tank/a")) == ["zpool", "import", "-N", "tank"]


@pytest.mark.parametrize(
    ("tools", "version", "lacks"),
    [
        (TOOLS, "2.2.0-1", []),
        (TOOLS, "2.10.1", []),
        (TOOLS, "2.1.11-1", ["OpenZFS 2.1.11-1 has no id-mapped mounts, which came with 2.2"]),
        (TOOLS, "", ['the kernel module "zfs" is not loaded']),
        ({**TOOLS, "zfs": None}, "2.3.1", ['Required tool "zfs" is missing']),
    ],
)
def test_what_a_host_lacks_is_named(tools: dict[str, str | None], version: str, lacks: list[str]) -> None:
    assert zfs_plan.lacks(tools, version) == lacks


def test_one_of_two_properties_bounds_a_volume() -> None:
    assert zfs_plan.bounds(4096, {}) == ["quota=4096", "refquota=none"]
    assert zfs_plan.bounds(0, {}) == ["quota=none", "refquota=none"]
    by_reference = {"volume.zfs.use_refquota": "true"}
    assert zfs_plan.bounds(4096, by_reference) == ["quota=none", "refquota=4096"]
    assert zfs_plan.least_bound(4096, 1 << 30) > 1 << 30
    assert zfs_plan.least_bound(1 << 40, 1 << 30) == 1 << 40


def test_volumes_are_the_datasets_two_below_the_root() -> None:
    listed = (
        "t/podium\nt/podium/containers\nt/podium/containers/a\nt/podium/custom/new:b\nt/podium/custom/b/c\n"
    )
    assert zfs_plan.names_in(listed, "t/podium") == {"containers/a", "custom/new:b"}


def test_snapshots_are_read_with_what_hangs_on_them() -> None:
    listed = "t/a@podium-1\tt/b,t/c\nt/a@podium-2\t\nt/a@mine\t-\nt/a@podium-3\t-\n"
    assert zfs_plan.clones_in(listed) == ["t/b", "t/c"]
    assert zfs_plan.unused_snapshots(listed) == ["t/a@podium-2", "t/a@podium-3"]
    assert zfs_plan.clones_in("") == []


def test_sizes_are_read_by_id() -> None:
    listed = "t/podium/containers\t98304\nt/podium/containers/a\t8388608\nt/podium/containers/b\t-\n"
    assert zfs_plan.sizes_in(listed) == {"containers": 98304, "a": 8388608}
