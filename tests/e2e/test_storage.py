"""Custom volumes and disks with the stock client, on the real kernel."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Podium

GUEST = "disks"


@pytest.fixture(scope="module")
def guest(podium: Podium) -> Iterator[str]:
    podium.lxc("launch", "debian/12", GUEST)
    yield GUEST
    podium.lxc("delete", "-f", GUEST)


@pytest.fixture
def volume(podium: Podium) -> Iterator[str]:
    podium.lxc("storage", "volume", "create", "default", "data", "size=20MiB")
    yield "data"
    podium.run("storage", "volume", "detach", "default", "data", GUEST)
    podium.lxc("storage", "volume", "delete", "default", "data")


def inside(podium: Podium, command: str) -> str:
    return podium.lxc("exec", GUEST, "--", "sh", "-c", command).strip()


def test_a_volume_is_attached_live_and_its_size_holds(podium: Podium, guest: str, volume: str) -> None:
    """Owned by the guest's root without a chown, bounded by its pool, gone when it is detached."""
    podium.lxc("storage", "volume", "attach", "default", volume, guest, "/srv/data")
    assert inside(podium, "stat -c %u:%g /srv/data") == "0:0"
    full = podium.run("exec", guest, "--", "dd", "if=/dev/urandom", "of=/srv/data/f", "bs=1M", "count=40")
    assert b"Disk quota exceeded" in full.stderr
    assert "Total: 20.00MiB" in podium.lxc("storage", "volume", "info", "default", volume)
    assert f"custom,{volume},,filesystem,1" in podium.lxc(
        "storage", "volume", "list", "default", "--format", "csv"
    )
    podium.lxc("storage", "volume", "set", "default", volume, "size", "60MiB")
    inside(podium, "dd if=/dev/urandom of=/srv/data/f bs=1M count=30")
    refused = podium.run("storage", "volume", "set", "default", volume, "size", "5MiB")
    assert b"holds" in refused.stderr
    podium.lxc("storage", "volume", "detach", "default", volume, guest)
    assert inside(podium, "test -e /srv/data || echo gone") == "gone"


def test_a_volume_outlives_its_guest_and_is_shared(podium: Podium, guest: str, volume: str) -> None:
    """Both see the same owners, whatever host ids they have."""
    podium.lxc("storage", "volume", "attach", "default", volume, guest, "/srv/data")
    inside(podium, "echo hello >/srv/data/f; chown 1000:1000 /srv/data/f")
    podium.lxc("init", "debian/12", "second")
    podium.lxc("storage", "volume", "attach", "default", volume, "second", "/mnt")
    podium.lxc("start", "second")
    found = podium.lxc("exec", "second", "--", "sh", "-c", "stat -c %u /mnt/f; cat /mnt/f")
    assert found.split() == ["1000", "hello"]
    podium.lxc("delete", "-f", "second")
    assert inside(podium, "cat /srv/data/f") == "hello"


def test_a_guest_lays_its_own_overlays_in_a_volume(podium: Podium, guest: str, volume: str) -> None:
    """As Docker and Podman inside do. Its root is an overlay, which the kernel takes as no upper layer."""
    podium.lxc("storage", "volume", "attach", "default", volume, guest, "/var/lib/docker")
    make = "cd /var/lib/docker; mkdir -p low up work all; echo kept > low/file"
    mount = "mount -t overlay none -o lowerdir=low,upperdir=up,workdir=work all"
    assert inside(podium, f"{make}; {mount}; cat all/file; rm all/file; ls all; umount all") == "kept"
    assert inside(podium, "stat -c %F /var/lib/docker/up/file") == "character special file"


def test_a_snapshot_brings_back_what_was_there(podium: Podium, guest: str, volume: str) -> None:
    podium.lxc("storage", "volume", "attach", "default", volume, guest, "/srv/data")
    inside(podium, "echo old >/srv/data/f")
    podium.lxc("storage", "volume", "snapshot", "default", volume)
    inside(podium, "echo new >/srv/data/f")
    podium.lxc("storage", "volume", "copy", f"default/{volume}/snap0", "default/copied")
    podium.lxc("storage", "volume", "attach", "default", "copied", guest, "/srv/copied")
    assert inside(podium, "cat /srv/data/f /srv/copied/f") == "new\nold"
    podium.lxc("storage", "volume", "detach", "default", "copied", guest)
    podium.lxc("storage", "volume", "detach", "default", volume, guest)
    podium.lxc("storage", "volume", "restore", "default", volume, "snap0")
    podium.lxc("storage", "volume", "attach", "default", volume, guest, "/srv/data")
    assert inside(podium, "cat /srv/data/f") == "old"
    podium.lxc("storage", "volume", "delete", "default", "copied")


def test_a_volume_is_exported_and_comes_back_with_owners_and_snapshots(
    podium: Podium, guest: str, volume: str, tmp_path: Path
) -> None:
    """The archive goes through the image service, which converts it outside root."""
    podium.lxc("storage", "volume", "attach", "default", volume, guest, "/srv/data")
    inside(podium, "echo old >/srv/data/f; chown 1000:7 /srv/data/f; ln -s f /srv/data/l")
    podium.lxc("storage", "volume", "snapshot", "default", volume)
    inside(podium, "echo new >/srv/data/f")
    podium.lxc("storage", "volume", "export", "default", volume, str(tmp_path / "v.tar.gz"))
    podium.lxc("storage", "volume", "import", "default", str(tmp_path / "v.tar.gz"), "back")
    podium.lxc("storage", "volume", "attach", "default", "back", guest, "/srv/back")
    assert inside(podium, "stat -c %u:%g /srv/back/f; cat /srv/back/l").split() == ["1000:7", "new"]
    podium.lxc("storage", "volume", "detach", "default", "back", guest)
    podium.lxc("storage", "volume", "restore", "default", "back", "snap0")
    podium.lxc("storage", "volume", "attach", "default", "back", guest, "/srv/back")
    assert inside(podium, "cat /srv/back/f") == "old"
    podium.lxc("storage", "volume", "detach", "default", "back", guest)
    podium.lxc("storage", "volume", "delete", "default", "back")


def test_a_folder_of_the_host_can_be_shifted_bounded_and_lost(
    podium: Podium, guest: str, tmp_path: Path
) -> None:
    """What a guest mounts in it stays in the guest; when it is gone from the host it can be taken out."""
    source = tmp_path / "shared"
    (source / "sub").mkdir(parents=True)
    disk = ("config", "device", "add", guest, "host", "disk", f"source={source}", "path=/srv/host")
    podium.lxc(*disk, "shift=true", "limits.read=10MB")
    inside(podium, "touch /srv/host/x; mount -t tmpfs none /srv/host/sub")
    assert (source / "x").stat().st_uid == 0
    assert str(source) not in Path("/proc/self/mounts").read_text()
    bounds = Path("/sys/fs/cgroup").glob("blkio/podium/*/blkio.throttle.read_bps_device")
    assert any("10000000" in file.read_text() for file in bounds)
    podium.lxc("config", "device", "set", guest, "host", "readonly=true")
    assert inside(podium, "touch /srv/host/y 2>&1 || true").endswith("Read-only file system")
    podium.lxc("config", "device", "set", guest, "host", "readonly=false", "raw.mount.options=noexec,noatime")
    assert "noexec,noatime" in inside(podium, "grep /srv/host /proc/self/mounts")
    assert "permission denied" in inside(podium, "mount -o remount,bind,exec /srv/host 2>&1 || true")
    subprocess.run(["rm", "-r", source], check=True)
    podium.lxc("config", "device", "remove", guest, "host")
    assert "/srv/host" not in inside(podium, "cat /proc/self/mounts")


def test_disks_are_there_again_after_a_restart_and_a_crash_of_services(
    podium: Podium, guest: str, volume: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("from the host")
    podium.lxc("storage", "volume", "attach", "default", volume, guest, "/srv/data")
    podium.lxc("config", "device", "add", guest, "f", "disk", f"source={tmp_path}/file", "path=/etc/given")
    inside(podium, "echo kept >/srv/data/f")
    podium.lxc("restart", "-f", guest)
    assert inside(podium, "cat /srv/data/f /etc/given") == "kept\nfrom the host"
    podium.lxc("config", "device", "remove", guest, "f")
    assert inside(podium, "test -e /etc/given || echo gone") == "gone"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("source=/nonexistent", "path=/m"), 'Missing source path "/nonexistent" for disk "d"'),
        (
            ("pool=default", "source=none", "path=/m"),
            "Failed loading custom volume: Storage volume not found",
        ),
        (("pool=none", "source=none", "path=/m"), 'Failed to get storage pool "none"'),
        (("source=/etc", "path=/m", "size=1GiB"), "Only the root disk may have a size quota"),
    ],
)
def test_disks_that_cannot_be_are_refused_with_the_reason(
    podium: Podium, guest: str, options: tuple[str, ...], words: str
) -> None:
    done = podium.run("config", "device", "add", guest, "d", "disk", *options)
    assert done.returncode == 1
    assert words in done.stderr.decode()
    assert "d:" not in podium.lxc("config", "device", "show", guest)


def test_volumes_of_a_project_are_its_own(podium: Podium) -> None:
    podium.lxc("project", "create", "storing")
    podium.lxc("storage", "volume", "create", "default", "mine", "--project", "storing")
    assert "mine" not in podium.lxc("storage", "volume", "list", "default")
    assert "storing" in podium.lxc("storage", "volume", "list", "default", "--all-projects")
    podium.lxc("storage", "volume", "delete", "default", "mine", "--project", "storing")
    podium.lxc("project", "delete", "storing")


def test_a_link_leads_nobody_out_of_the_folders_of_a_restricted_project(
    podium: Podium, tmp_path: Path
) -> None:
    """Who may write there could else have any folder of the host shown to his instance."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_text("mine")
    (tmp_path / "good").symlink_to("in")
    (tmp_path / "evil").symlink_to("/etc")
    own = ("--project", "tenant")
    allowed = ("-c", "restricted.devices.disk=allow", "-c", f"restricted.devices.disk.paths={tmp_path}")
    project = ("-c", "restricted=true", "-c", "features.images=false")
    podium.lxc("project", "create", "tenant", *project, *allowed)
    podium.lxc("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default", *own)
    podium.lxc("launch", "debian/12", "inside", *own)
    disk = ("config", "device", "add", "inside")
    podium.lxc(*disk, "good", "disk", f"source={tmp_path}/good", "path=/mnt/good", *own)
    assert podium.lxc("exec", "inside", *own, "--", "cat", "/mnt/good/f").strip() == "mine"
    refused = podium.run(*disk, "evil", "disk", f"source={tmp_path}/evil", "path=/mnt/evil", *own)
    assert b"No such file or directory" in refused.stderr
    refused = podium.run(*disk, "out", "disk", f"source={tmp_path}/../../etc", "path=/mnt/out", *own)
    assert b"not allowed" in refused.stderr
    podium.lxc("delete", "-f", "inside", *own)
    podium.lxc("profile", "device", "remove", "default", "root", *own)
    podium.lxc("project", "delete", "tenant")


def test_who_filled_its_root_can_start_again_and_make_room(podium: Podium) -> None:
    """overlayfs mounted a full volume read-only, so nothing in it could ever be deleted."""
    podium.lxc("launch", "debian/12", "full", "-d", "root,size=64MiB")
    fill = ("exec", "full", "--", "sh", "-c", "cat /dev/urandom >/root/fill")
    assert b"Disk quota exceeded" in podium.run(*fill).stderr
    podium.lxc("snapshot", "full", "then")
    podium.lxc("restart", "-f", "full")
    podium.lxc("exec", "full", "--", "rm", "/root/fill")
    assert b"Disk quota exceeded" in podium.run(*fill).stderr
    podium.lxc("stop", "-f", "full")
    podium.lxc("config", "device", "set", "full", "root", "size=256MiB")
    podium.lxc("start", "full")
    podium.lxc("exec", "full", "--", "dd", "if=/dev/urandom", "of=/root/more", "bs=1M", "count=20")
    podium.lxc("delete", "-f", "full")
