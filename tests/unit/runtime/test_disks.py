"""Disks: which options are refused, what is mounted where, and how bounds of devices come together."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.configkeys.devices.disk import DiskLimits, limits, together
from core.configkeys.devices.registry import check_instance_devices
from core.errors import Invalid, NotFound, WrongState
from core.records import Instance, Project, Volume
from core.state import keys
from core.state.store import Txn
from services.runtime.domain.devices import disk
from services.runtime.domain.devices.plan import Bind, DevicePlan, HostNode
from services.runtime.domain.devices.registry import plan_devices
from services.runtime.kernel import blocks
from services.runtime.usecases.instances.disks import InstanceFacts, check_disks, check_places
from tests.fakes.runtime_host import FakeFacts
from tests.unit.runtime.conftest import World

Options = dict[str, str]
HOST: Options = {"type": "disk", "source": "/srv", "path": "/mnt"}
VOLUME: Options = {"type": "disk", "pool": "default", "source": "data", "path": "mnt/../data"}
ROOT: Options = {"type": "disk", "pool": "default", "path": "/"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "/mnt"}, 'Disk entry is missing the required "source" or "path" property'),
        ({**HOST, "source": "srv"}, "Source path must be absolute for local sources"),
        ({**HOST, "size": "1GiB"}, "Only the root disk may have a size quota"),
        ({**HOST, "size.state": "1GiB"}, "Only the root disk may have a migration size quota"),
        ({**HOST, "recursive": "true", "readonly": "true"}, "Recursive read-only bind-mounts"),
        ({**HOST, "required": "true", "optional": "true"}, "Cannot use both"),
        ({**HOST, "raw.mount.options": "uid=5"}, "Mount option 'uid=5' is not one of those that work here"),
        ({**HOST, "propagation": "bogus"}, 'Invalid propagation mode "bogus"'),
        ({**HOST, "limits.read": "bogus"}, "Invalid value: bogus"),
        ({**HOST, "readonly": "maybe"}, 'Invalid value for a boolean "maybe"'),
        ({**HOST, "io.cache": "none"}, 'Invalid device option "io.cache"'),
        ({**HOST, "source": "cloud-init:config"}, "only supported by virtual machines"),
        ({**HOST, "source": "ceph:pool/x"}, "Required tool 'ceph' is missing"),
        ({**VOLUME, "source": "/etc"}, "Storage volumes cannot be specified as absolute paths"),
        ({**VOLUME, "shift": "true"}, 'The "shift" property cannot be used with custom storage volumes'),
        ({**ROOT, "source": "/etc"}, 'Root disk entry may not have a "source" property set'),
        ({"path": "/"}, 'Root disk entry must have a "pool" property set'),
    ],
)
def test_disks_that_make_no_sense_are_refused_in_the_words_of_lxd(options: Options, words: str) -> None:
    with pytest.raises(Invalid, match=f'Device validation failed for "d1": .*{words}'):
        check_instance_devices({"d1": {"type": "disk", **options}})


def planned(options: Options, *there: str) -> DevicePlan | None:
    facts = FakeFacts()
    facts.nodes = dict.fromkeys(there, HostNode("", 0, 0))
    return next(iter(plan_devices({"d1": options}, facts)), None)


def test_the_root_is_no_device_to_plug() -> None:
    assert planned(ROOT) is None


def test_a_volume_has_the_owners_that_the_guest_knows() -> None:
    plan = planned({**VOLUME, "readonly": "true"})
    assert plan
    assert plan.binds == (Bind("/pools/default/data", "/data", read_only=True, shifted=True, is_volume=True),)


def test_a_folder_of_the_host_is_shown_as_it_is_unless_it_is_shifted() -> None:
    plan = planned({**HOST, "source": "/srv/x/..", "path": "m"}, "/srv")
    shifted = planned({**HOST, "shift": "true", "recursive": "true", "propagation": "rslave"}, "/srv")
    assert plan and plan.binds == (Bind("/srv", "/m"),)
    assert shifted and shifted.binds == (
        Bind("/srv", "/mnt", shifted=True, recursive=True, propagation="rslave"),
    )


def test_options_of_a_mount_are_taken_and_those_of_file_systems_refused() -> None:
    plan = planned({**HOST, "raw.mount.options": "noexec, ro"}, "/srv")
    assert plan
    assert plan.binds == (Bind("/srv", "/mnt", read_only=True, options=("noexec", "ro")),)


def test_what_is_not_there_must_not_be_required() -> None:
    with pytest.raises(
        WrongState, match='Failed start validation for device "d1": Missing source path "/srv" for disk'
    ):
        planned(HOST)
    assert planned({**HOST, "required": "false"}) is None
    assert planned({**HOST, "optional": "true"}) is None


def test_bounds_are_bytes_or_operations_and_max_is_for_both() -> None:
    assert limits({"limits.read": "10MB", "limits.write": "20iops"}) == DiskLimits(10_000_000, 0, 0, 20)
    assert limits({"limits.read": "10MB", "limits.max": "5MiB"}) == DiskLimits(5 << 20, 0, 5 << 20, 0)


def test_bounds_of_disks_on_one_device_are_their_mean() -> None:
    """The kernel knows one bound per device; LXD takes the mean of those that are set."""
    assert together([DiskLimits(10, 0, 0, 4), DiskLimits(20, 0, 6, 0)]) == DiskLimits(15, 0, 6, 4)
    found = disk.limits({"root": {**ROOT, "limits.max": "4B"}, "d": {**HOST, "limits.read": "8B"}},
                        FakeFacts(), "/pool")  # fmt: skip
    assert found == {"7:0": DiskLimits(6, 0, 4, 0)}


def test_a_bound_is_written_and_taken_back(tmp_path: Path) -> None:
    for name in ("read_bps", "read_iops", "write_bps", "write_iops"):
        (tmp_path / f"blkio.throttle.{name}_device").write_text("9:9 7\n" if name == "read_bps" else "")
    blocks.throttle(tmp_path, {"8:0": DiskLimits(1, 2, 3, 4)}, is_v2=False)
    # A file keeps the last line only: "9:9" came after "8:0", since it was bounded before.
    assert (tmp_path / "blkio.throttle.read_bps_device").read_text() == "9:9 0"
    (tmp_path / "io.max").write_text("")
    blocks.throttle(tmp_path, {"8:0": DiskLimits(1, 0, 3, 4)}, is_v2=True)
    assert (tmp_path / "io.max").read_text() == "8:0 rbps=1 riops=max wbps=3 wiops=4"


def test_the_device_below_a_folder_is_the_whole_disk(tmp_path: Path) -> None:
    assert blocks.block_of(str(tmp_path / "none")) == ""
    info = "1 0 0:5 / / rw - btrfs /dev/null rw\n2 1 0:6 / /srv/x rw - tmpfs tmpfs rw\n"
    assert blocks._mounted_from("/srv/x/y", info) == 0


async def given(world: World, volume: Volume, **restrictions: str) -> InstanceFacts:
    config = {key.replace("_", "."): value for key, value in restrictions.items()}
    txn = Txn().put(keys.volume(volume.pool, "default", volume.name), volume)
    await world.host.store.commit(txn.put(keys.project("default"), Project("default", config=config)))
    await world.host.store.projects.wait_for(world.host.store.projects.revision + 1, timeout_s=1)
    return world.host.facts_of("default")


async def test_links_may_not_lead_out_of_what_a_project_is_restricted_to(world: World) -> None:
    paths = {"restricted": "true", "restricted.devices.disk.paths": "/srv, /srv/deep,/data"}
    facts = await given(world, Volume("i", "default", "default", "data"), **paths)
    assert [facts.bound(path) for path in ("/srv/a", "/srv/deep/a", "/data")] == ["/srv", "/srv", "/data"]
    with pytest.raises(WrongState, match="not allowed"):
        facts.bound("/srvx")


@pytest.mark.parametrize("written", ["/srv//data", "/srv/x/../data", "/srv/data/"])
async def test_a_bound_that_is_written_oddly_is_one_too(world: World, written: str) -> None:
    """What the policy lets in below a folder, the mount must not follow out of it."""
    paths = {"restricted": "true", "restricted.devices.disk.paths": written}
    facts = await given(world, Volume("i", "default", "default", "data"), **paths)
    assert facts.bound("/srv/data/a") == "/srv/data"


async def test_a_new_disk_needs_its_pool_its_volume_and_its_source(world: World) -> None:
    await given(world, Volume("i", "default", "default", "data"))
    txn, instance = Txn(), Instance(project="default")

    def check(**options: str) -> None:
        check_disks(world.host.store, world.host.facts, txn, instance, {"d1": {"type": "disk", **options}})

    check(pool="default", source="data", path="/m")
    assert [c.key for c in txn.checks] == [keys.volume("default", "default", "data")]
    for error, words, options in (
        (NotFound, 'Failed to get storage pool "x": Storage pool not found', {"pool": "x", "source": "data"}),
        (NotFound, "Failed loading custom volume: Storage volume not found",
         {"pool": "default", "source": "x"}),
        (Invalid, "Custom filesystem volumes require a path", {"pool": "default", "source": "data"}),
        (Invalid, 'Missing source path "/x" for disk "d1"', {"source": "/x", "path": "/m"}),
    ):  # fmt: skip
        with pytest.raises(error, match=f'Failed add validation for device "d1": {words}'):
            check(**options)


def test_two_disks_of_an_instance_cannot_have_the_same_place() -> None:
    with pytest.raises(Invalid, match='More than one disk device uses the same path "mnt"'):
        check_places(Instance(devices={"a": HOST, "b": {**HOST, "path": "mnt"}}))
