"""Instances go from one Podium to another, as the stock client arranges it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protos.podium.migration.v1 import migration_pb2 as pb
from tests.e2e.conftest import Podium, running, unharmed
from tests.fakes.image_server import METADATA, tar
from tests.relay import Carried, Place, Twist, as_lxd, relay


@pytest.fixture(scope="module")
def other(podium: Podium) -> Iterator[Podium]:
    """A second Podium, which the first one's client knows as "other"."""
    with running() as found:
        token = found.lxc("config", "trust", "add", "--name", "first").split()[-1]
        podium.lxc("remote", "add", "other", token)
        # Nobody can push to a unix socket.
        token = podium.lxc("config", "trust", "add", "--name", "home").split()[-1]
        if podium.run("remote", "add", "home", token).returncode:  # another test made it trusted
            podium.lxc("remote", "add", "home", podium.settings.https_address, "--accept-certificate")
        yield found


@pytest.fixture
def traveller(podium: Podium) -> Iterator[str]:
    podium.lxc("init", "debian/12", "goer", "-c", "user.note=mine")
    podium.lxc("file", "push", "-", "goer/root/old", "--uid", "7", input=b"1")
    podium.lxc("snapshot", "goer", "s1")
    podium.lxc("file", "push", "-", "goer/root/new", input=b"2")
    yield "goer"
    podium.run("delete", "-f", "goer")


@pytest.mark.parametrize("mode", ["pull", "push", "relay"])
def test_an_instance_is_copied_with_its_snapshots(
    podium: Podium, other: Podium, traveller: str, mode: str
) -> None:
    """Whoever connects to whom: files, owners, configuration and snapshots arrive."""
    podium.lxc("copy", traveller, "other:there", "--mode", mode)

    assert other.lxc("config", "get", "there", "user.note") == "mine\n"
    assert other.lxc("file", "pull", "there/root/new", "-") == "2"
    other.lxc("restore", "there", "s1")
    other.lxc("start", "there")
    said = other.lxc("exec", "there", "--", "sh", "-c", "stat -c %u /root/old; ls /root/new; hostname")
    assert said.split() == ["7", "there"]
    other.lxc("delete", "-f", "there")


def test_a_move_leaves_nothing_behind(podium: Podium, other: Podium, traveller: str) -> None:
    """And a snapshot can go alone, as an instance."""
    podium.lxc("copy", "goer/s1", "other:of-snapshot")
    podium.lxc("move", "goer", "other:moved", "--instance-only")

    assert podium.lxc("list", "-f", "csv", "-c", "n", "goer") == ""
    assert other.lxc("list", "-f", "csv", "-c", "nS", "moved") == "moved,0\n"
    assert other.run("file", "pull", "of-snapshot/root/new", "-").returncode == 1
    other.lxc("delete", "moved", "of-snapshot")


def test_a_refresh_brings_what_is_new(podium: Podium, other: Podium, traveller: str) -> None:
    """Root and snapshots become those of the source; what only the copy had is gone, its name stays."""
    podium.lxc("copy", traveller, "other:kept")
    other.lxc("snapshot", "kept", "own")
    other.lxc("file", "push", "-", "kept/root/own", input=b"x")
    podium.lxc("file", "push", "-", "goer/root/newer", input=b"3")
    podium.lxc("snapshot", "goer", "s2")

    podium.lxc("copy", traveller, "other:kept", "--refresh")

    assert other.lxc("file", "pull", "kept/root/newer", "-") == "3"
    assert other.run("file", "pull", "kept/root/own", "-").returncode == 1
    taken = json.loads(other.lxc("query", "/1.0/instances/kept/snapshots?recursion=1"))
    assert [snapshot["name"] for snapshot in taken] == ["s1", "s2"]
    assert other.lxc("file", "pull", "kept/etc/hostname", "-") == "kept\n"
    other.lxc("restore", "kept", "s1")
    other.lxc("delete", "kept")


@pytest.fixture
def luggage(podium: Podium) -> Iterator[str]:
    """A volume with a file, and a snapshot of when that was another one."""
    podium.lxc("storage", "volume", "create", "default", "bag", "user.note=mine")
    _fill(podium, "one")
    podium.lxc("storage", "volume", "snapshot", "default", "bag", "s1")
    _fill(podium, "two")
    yield "default/bag"
    podium.run("storage", "volume", "delete", "default", "bag")


def _fill(side: Podium, text: str) -> None:
    """Let the volume bag hold *text*, owned by user 7."""
    side.lxc("init", "debian/12", "porter")
    side.lxc("storage", "volume", "attach", "default", "bag", "porter", "/bag")
    side.lxc("start", "porter")
    side.lxc("exec", "porter", "--", "sh", "-c", f"echo {text} > /bag/f && chown 7 /bag/f")
    side.lxc("delete", "-f", "porter")


def _held(side: Podium, volume: str) -> list[str]:
    """Return owner and text of the file in a volume."""
    side.lxc("init", "debian/12", "porter")
    side.lxc("storage", "volume", "attach", "default", volume, "porter", "/bag")
    side.lxc("start", "porter")
    said = side.lxc("exec", "porter", "--", "sh", "-c", "stat -c %u /bag/f; cat /bag/f")
    side.lxc("delete", "-f", "porter")
    return said.split()


def _taken(side: Podium, volume: str) -> list[str]:
    path = f"/1.0/storage-pools/default/volumes/custom/{volume}/snapshots?recursion=1"
    return [snapshot["name"].rpartition("/")[2] for snapshot in json.loads(side.lxc("query", path))]


def test_a_volume_is_copied_with_its_snapshots(podium: Podium, other: Podium, luggage: str) -> None:
    """Whoever connects to whom: files, owners, keys and snapshots arrive; a refresh brings what is new."""
    for mode in ("pull", "push", "relay"):
        more = ("--volume-only",) if mode == "push" else ()
        podium.lxc("storage", "volume", "copy", luggage, f"other:default/{mode}", "--mode", mode, *more)
        assert other.lxc("storage", "volume", "get", "default", mode, "user.note") == "mine\n"
        assert _taken(other, mode) == ([] if more else ["s1"])
    assert _held(other, "pull") == ["7", "two"]

    podium.lxc("storage", "volume", "snapshot", "default", "bag", "s2")
    podium.lxc("storage", "volume", "delete", "default", "bag/s1")
    _fill(podium, "three")
    podium.lxc("storage", "volume", "copy", luggage, "other:default/pull", "--refresh")
    assert (_held(other, "pull"), _taken(other, "pull")) == (["7", "three"], ["s2"])
    other.lxc("storage", "volume", "restore", "default", "pull", "s2")
    assert _held(other, "pull") == ["7", "two"]
    for mode in ("pull", "push", "relay"):
        other.lxc("storage", "volume", "delete", "default", mode)


def test_a_volume_is_moved_or_stays_whole(podium: Podium, other: Podium, luggage: str) -> None:
    """What is refused is told, and leaves the original where it was."""
    other.lxc("storage", "volume", "create", "default", "taken")
    for target, said in (("taken", "already exists"), ("nope/x", "not found")):
        place = target if "/" in target else f"default/{target}"
        done = podium.run("storage", "volume", "move", luggage, f"other:{place}")
        assert done.returncode == 1
        assert said in done.stderr.decode(), target
    podium.lxc("storage", "volume", "move", luggage, "other:default/moved")
    assert podium.run("storage", "volume", "show", "default", "bag").returncode == 1
    assert (_held(other, "moved"), _taken(other, "moved")) == (["7", "two"], ["s1"])
    for volume in ("moved", "taken"):
        other.lxc("storage", "volume", "delete", "default", volume)


def _relayed(podium: Podium, other: Podium, name: str, twist: Twist, *, refresh: bool = False) -> Carried:
    """Let a client of ours carry goer from one to the other, where it is called *name*."""
    there = Place(podium.state_dir / "unix.socket", "/1.0/instances/goer", {"migration": True, "live": False})
    source = {"type": "migration", "mode": "push", "refresh": refresh}
    here = Place(other.state_dir / "unix.socket", "/1.0/instances", {"name": name, "source": source})
    return relay(there, here, twist)


def test_a_refresh_sends_what_differs(podium: Podium, other: Podium, traveller: str) -> None:
    """As between two LXDs: by rsync, with the snapshots that are missing. Hard links stay what they are."""
    whole = _relayed(podium, other, "little", Twist(header=as_lxd))
    assert not whole.target["err"]
    podium.lxc("file", "push", "-", "goer/root/newest", input=b"4")
    podium.lxc("snapshot", "goer", "s2")
    podium.lxc("file", "delete", "goer/root/old")

    less = _relayed(podium, other, "little", Twist(), refresh=True)

    assert not less.target["err"]
    assert less.sent + less.answered < whole.sent / 20
    assert other.lxc("file", "pull", "little/root/newest", "-") == "4"
    assert other.run("file", "pull", "little/root/old", "-").returncode == 1
    other.lxc("restore", "little", "s2")
    assert other.lxc("file", "pull", "little/root/old", "-") == "1"
    other.lxc("delete", "little")


def _many(header: bytes) -> bytes:
    message = pb.MigrationHeader.FromString(as_lxd(header))
    message.snapshot_names.extend(f"s{n}" for n in range(5000))
    return bytes(message.SerializeToString())


def _named(name: str) -> Callable[[bytes], bytes]:
    def twisted(header: bytes) -> bytes:
        message = pb.MigrationHeader.FromString(as_lxd(header))
        message.snapshot_names[0] = message.snapshots[0].name = name
        return bytes(message.SerializeToString())

    return twisted


def _shifted(header: bytes) -> bytes:
    message = pb.MigrationHeader.FromString(as_lxd(header))
    message.idmap.add(is_uid=True, host=-5, inside=0, count=10)
    return bytes(message.SerializeToString())


HOSTILE = {
    "no header": (Twist(header=lambda _: b"\xff\xff\xff"), "nobody understands"),
    "no way": (Twist(header=lambda _: b"\x08\x03"), "no way of migration"),
    "too many snapshots": (Twist(header=_many), "more than 1000 snapshots"),
    "a snapshot above": (Twist(header=_named("../../x")), "snapshot"),
    "ids of nobody": (Twist(header=_shifted), "shifted unevenly"),
    "cut": (Twist(as_lxd, source_data=lambda n, data: data if n < 9 else None), "lost"),
    "other bytes": (Twist(as_lxd, source_data=lambda n, data: data if n < 9 else bytes(len(data))), ""),
    "much of nothing": (Twist(as_lxd, source_data=lambda n, data: bytes(8 << 20)), ""),
    "a sink that wants more": (Twist(as_lxd, answer=lambda _: as_answer("s7")), "s7"),
}


def as_answer(name: str) -> bytes:
    message = pb.MigrationHeader(fs=0, refresh=True, snapshot_names=[name])
    message.snapshots.add(name=name)
    message.rsync.SetInParent()
    return bytes(message.SerializeToString())


def test_hostile_peers_leave_nothing(podium: Podium, other: Podium, traveller: str) -> None:
    """Both sides end with a reason; no instance, volume, mount or process stays."""
    volumes = other.state_dir / "pools" / "default" / "containers"
    before = set(os.listdir(volumes)), set(os.listdir(other.state_dir / "instances"))
    with unharmed(podium), unharmed(other):
        for what, (twist, said) in HOSTILE.items():
            carried = _relayed(podium, other, "evil", twist)
            errors = carried.source["err"], carried.target["err"]
            assert all(errors), f"{what}: {errors}"
            assert said in " ".join(errors), f"{what}: {errors}"
            assert other.lxc("list", "-f", "csv", "-c", "n", "^evil$") == "", what
            after = set(os.listdir(volumes)), set(os.listdir(other.state_dir / "instances"))
            assert after == before, what
    mounts = Path("/proc/self/mounts").read_text()
    assert not [line for line in mounts.splitlines() if f"{other.state_dir}/instances/" in line]


def test_what_cannot_go_is_told_and_leaves_nothing(podium: Podium, other: Podium, traveller: str) -> None:
    """Each in one sentence, from whichever side refuses."""
    other.lxc("init", "debian/12", "taken")
    for args, said in (
        (("other:taken",), "already exists"),
        (("other:x", "-p", "nope"), "nope"),
        (("other:x", "-s", "nope"), "Storage pool not found"),
        (("other:x", "-c", "raw.lxc=lxc.hook.pre-start=/bin/sh"), "raw.lxc"),
    ):
        done = podium.run("copy", traveller, *args)
        assert done.returncode == 1, args
        assert said in done.stderr.decode(), args
    podium.lxc("start", traveller)
    done = podium.run("copy", traveller, "other:x")
    assert "CRIU isn't installed" in done.stderr.decode()
    podium.lxc("copy", traveller, "other:x", "--stateless")
    assert other.lxc("list", "-f", "csv", "-c", "n", "x") == "x\n"
    other.lxc("delete", "taken", "x")


def test_only_the_certificate_that_was_named_is_believed(podium: Podium, other: Podium) -> None:
    """And only operations of servers are connected to: no other URL, no other protocol."""
    url = f"https://{other.settings.https_address}/1.0/operations/{'0' * 8}-0000-0000-0000-{'0' * 12}"
    own = json.loads(podium.lxc("query", "/1.0"))["environment"]["certificate"]
    secrets = {"control": "a", "fs": "b"}
    with unharmed(podium):
        for change, said in (
            ({"certificate": own}, "could not be reached"),
            ({"certificate": "no PEM"}, "certificate must be"),
            ({"certificate": ""}, "certificate must be"),
            ({"certificate": own, "operation": "http://127.0.0.1/1.0/operations/x"}, "https URL"),
            ({"certificate": own, "operation": "https://169.254.169.254/latest/meta-data"}, "https URL"),
            ({"certificate": own, "secrets": {"control": "a"}}, "secrets must have"),
        ):
            source = {"type": "migration", "mode": "pull", "operation": url, "secrets": secrets, **change}
            body = json.dumps({"name": "x", "source": source})
            done = podium.run("query", "-X", "POST", "--wait", "-d", body, "/1.0/instances")
            assert said in (done.stderr + done.stdout).decode(), change
    assert podium.lxc("list", "-f", "csv", "-c", "n", "^x$") == ""


@pytest.mark.parametrize("mode", ["pull", "push", "relay"])
@pytest.mark.parametrize("access", ["private", "public"])
def test_an_image_goes_and_comes_back_the_same(podium: Podium, other: Podium, access: str, mode: str) -> None:
    content = tar({"metadata.yaml": METADATA, "rootfs/etc/os-release": f"{access} {mode}".encode()})
    fingerprint, path = hashlib.sha256(content).hexdigest(), podium.conf / "image"
    path.write_bytes(content)
    more = ("--public",) if access == "public" else ()
    podium.lxc("image", "import", str(path), "--alias", "goes", *more)
    # The client takes an alias of a public image for its fingerprint in these modes.
    wanted = fingerprint if access == "public" and mode != "pull" else "goes"

    podium.lxc("image", "copy", wanted, "other:", "--mode", mode, "--copy-aliases", "-q")
    podium.lxc("image", "delete", "goes")
    podium.lxc("image", "copy", f"other:{fingerprint}", "home:", "--mode", mode, "--alias", "came", "-q")

    for side, alias in ((other, "goes"), (podium, "came")):
        found = side.rest.call("GET", f"/1.0/images/{fingerprint}")
        assert [a["name"] for a in found["aliases"]] == [alias]
        side.lxc("image", "export", fingerprint, str(path))
        assert hashlib.sha256(path.with_name("image.tar.gz").read_bytes()).hexdigest() == fingerprint
        side.lxc("image", "delete", fingerprint)
