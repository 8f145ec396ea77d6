"""The leak check names what is new, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.faults.leaks import (
    Owned,
    Snapshot,
    lasting_keys,
    leaked,
    lost,
    mount_points,
    orphaned_leases,
    owned_by,
)

MOUNTS = """\
30 1 254:0 / / rw - ext4 /dev/vda rw
41 30 0:50 / /var/lib/podium rw - tmpfs t rw
42 41 0:51 / /var/lib/podium/pools/a\\040b rw - btrfs /dev/loop0 rw
43 30 0:52 / /var/lib/podium-other/x rw - tmpfs t rw
"""


def snapshot(**found: set[str]) -> Snapshot:
    return Snapshot({kind: frozenset(names) for kind, names in found.items()})


def test_nothing_leaked_when_nothing_changed() -> None:
    same = snapshot(mount={"/a"}, link={"veth0"})
    assert leaked(same, same) == []
    assert lost(same, same) == []


def test_a_leak_is_named_by_kind_and_name() -> None:
    before, after = snapshot(link={"veth0"}), snapshot(link={"veth0", "veth1"}, mount={"/b", "/a"})
    assert leaked(before, after) == ["link: veth1", "mount: /a", "mount: /b"]


def test_what_went_away_is_lost_but_not_leaked() -> None:
    before, after = snapshot(cgroup={"memory/podium/i-1"}), snapshot(cgroup=set())
    assert leaked(before, after) == []
    assert lost(before, after) == ["cgroup: memory/podium/i-1"]


def test_a_kind_seen_only_before_is_lost_whole() -> None:
    assert lost(snapshot(lease={"br: x"}), Snapshot()) == ["lease: br: x"]


def test_only_mounts_strictly_below_the_state_folder_count() -> None:
    assert list(mount_points(MOUNTS, Path("/var/lib/podium"))) == ["/var/lib/podium/pools/a b"]


def test_operations_events_and_claims_are_no_leak() -> None:
    keys = [
        f"/p/{branch}x"
        for branch in ("operations/", "operation-events/", "claims/operations/", "instances/d/")
    ]
    assert list(lasting_keys(keys, "/p/")) == ["/p/instances/d/x"]


def test_what_a_podium_owns_is_read_off_every_record_it_ever_had() -> None:
    """Also a record that is gone tells whose cgroup or link a leftover is; other Podiums' never count."""
    records = [
        ("/p/observed/id-1", b"{}"),
        ("/p/nics/id-1/eth0", b'{"host_name": "veth1"}'),
        ("/p/nics/id-1/eth0", b""),
        ("/p/networks/my%2Dbr", b"{}"),
        ("/p/operations/x", b"{}"),
    ]
    owned = owned_by(records, "/p/")
    assert owned == Owned(frozenset({"id-1"}), frozenset({"veth1"}), frozenset({"my-br"}))
    assert owned.tables == {"podium_my_2dbr", "podium_nic_5fveth1"}


def test_a_lease_is_a_leak_when_no_guest_holds_its_address() -> None:
    text = "9 00:16:3e:00:00:01 10.0.0.2 a ff:x\n9 00:16:3e:00:00:02 10.0.0.3 b ff:y\nduid 00:01\n"
    assert list(orphaned_leases(text, ["10.0.0.2"])) == ["00:16:3e:00:00:02 10.0.0.3 b"]
