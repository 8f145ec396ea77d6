"""Device nodes through the stock client: plugged and unplugged live, beneath the guest's root, and kept."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.runtime.devices.facts import HostFacts
from services.runtime.kernel import uevents
from tests.e2e.conftest import Podium

NAME = "nodes"


@pytest.fixture(scope="module")
def guest(podium: Podium) -> Iterator[Podium]:
    podium.lxc("launch", "debian/12", NAME)
    yield podium
    podium.lxc("delete", "--force", NAME)


def _add(podium: Podium, name: str, *options: str) -> None:
    podium.lxc("config", "device", "add", NAME, name, *options)


def _remove(podium: Podium, *names: str) -> None:
    podium.lxc("config", "device", "remove", NAME, *names)


def _sh(podium: Podium, script: str) -> str:
    """Return what the script says inside, errors too; the exit status is not looked at."""
    done = podium.run("exec", NAME, "--", "sh", "-c", script)
    return (done.stdout + done.stderr).decode().strip()


def _node(podium: Podium, path: str) -> str:
    return _sh(podium, f"stat -c '%F %t:%T %u:%g %a' {path}")


def _until(condition: Callable[[], bool], timeout_s: float = 10) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def _node_here(path: Path, major: int, minor: int) -> Iterator[None]:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(major, minor))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def test_a_node_is_there_with_its_owner_and_can_be_opened(guest: Podium) -> None:
    """Seeing it is not enough: the devices cgroup must let it be opened, and no longer once it is gone."""
    _add(
        guest,
        "a",
        "unix-char",
        "source=/dev/loop-control",
        "path=/dev/sub/log",
        "uid=7",
        "gid=8",
        "mode=0640",
    )
    assert _node(guest, "/dev/sub/log") == "character special file a:ed 7:8 640"
    assert _sh(guest, "exec 3< /dev/sub/log") == ""
    guest.lxc("config", "device", "set", NAME, "a", "mode=0600", "uid=0")
    assert _node(guest, "/dev/sub/log") == "character special file a:ed 0:8 600"
    _remove(guest, "a")
    assert "No such file" in _node(guest, "/dev/sub/log")


def test_what_was_unplugged_cannot_be_opened_through_a_mount_that_was_kept(guest: Podium) -> None:
    """A guest may bind the node elsewhere; the cgroup is what takes it away."""
    _add(guest, "b", "unix-block", "source=/dev/loop7", "path=/dev/disk7")
    assert _sh(guest, "touch /root/own; mount --bind /dev/disk7 /root/own; head -c0 /root/own") == ""
    _remove(guest, "b")
    assert "Operation not permitted" in _sh(guest, "head -c0 /root/own")
    _sh(guest, "umount /root/own")


def test_a_link_in_the_guest_leads_nowhere_else(guest: Podium) -> None:
    """A target is found beneath the guest's root: a link to the host's folders means the guest's own."""
    host = Path("/run/podium-test-link")
    _sh(guest, f"ln -sfn {host.parent} /srv/out; ln -sfn /proc/1/root/etc /srv/magic")
    _add(guest, "c", "unix-char", "source=/dev/null", f"path=/srv/out/{host.name}")
    assert not host.exists()
    assert "character" in _node(guest, str(host))
    _remove(guest, "c")
    options = ("unix-char", "source=/dev/null", "path=/srv/magic/x")
    done = guest.run("config", "device", "add", NAME, "d", *options)
    assert b'Failed to start device "d"' in done.stderr
    assert guest.lxc("config", "device", "list", NAME).strip() == ""


def test_devices_of_a_profile_come_and_go_with_it(guest: Podium) -> None:
    guest.lxc("profile", "create", "with-null")
    guest.lxc("profile", "add", NAME, "with-null")
    guest.lxc("profile", "device", "add", "with-null", "n", "unix-char", "source=/dev/null", "path=/dev/n0")
    assert "character" in _node(guest, "/dev/n0")
    guest.lxc("profile", "device", "remove", "with-null", "n")
    assert "No such file" in _node(guest, "/dev/n0")
    guest.lxc("profile", "remove", NAME, "with-null")
    guest.lxc("profile", "delete", "with-null")


def test_init_finds_its_devices_at_the_start(guest: Podium) -> None:
    """They are there before init is: a start waits for them, and fails in LXD's words without one."""
    guest.lxc("stop", "--force", NAME)
    _add(guest, "e", "unix-char", "source=/dev/null", "path=/opt/node")
    guest.lxc("start", NAME)
    assert "character" in _node(guest, "/opt/node")
    guest.lxc("stop", "--force", NAME)
    _remove(guest, "e")
    _add(guest, "e", "unix-char", "path=/dev/nowhere")
    done = guest.run("start", NAME)
    assert b'Error: Failed to start device "e": The required device path doesn\'t exist' in done.stderr
    _remove(guest, "e")
    guest.lxc("start", NAME)


def test_a_device_that_is_not_required_follows_the_host(guest: Podium) -> None:
    path = Path("/dev/podium-test-node")
    _add(guest, "f", "unix-char", f"path={path}", "required=false")
    assert "No such file" in _node(guest, str(path))
    with _node_here(path, 1, 3):
        assert _until(lambda: "character" in _node(guest, str(path)))
    assert _until(lambda: "No such file" in _node(guest, str(path)))
    _remove(guest, "f")


def test_devices_survive_the_death_of_the_service(guest: Podium) -> None:
    """What is plugged is looked up: the next one finds it, and takes it away as if it had been its own."""
    _add(guest, "g", "unix-char", "source=/dev/null", "path=/dev/g0")
    _add(guest, "h", "proxy", "listen=unix:@podium-devices", "connect=tcp:127.0.0.1:9")
    before = guest.processes()["runtime"]
    os.kill(before, signal.SIGKILL)
    assert _until(lambda: guest.processes().get("runtime", before) != before)
    assert _until(lambda: guest.run("list").returncode == 0)
    assert "character" in _node(guest, "/dev/g0")
    _remove(guest, "g", "h")
    assert "No such file" in _node(guest, "/dev/g0")


def test_root_inside_cannot_make_a_read_only_disk_writable(guest: Podium, tmp_path: Path) -> None:
    """The kernel locks the flags of what propagates into a namespace of other owners, and only of that."""
    (tmp_path / "file").write_text("kept")
    tmp_path.chmod(0o777)
    options = (f"source={tmp_path}", "path=/mnt/ro", "readonly=true")
    _add(guest, "ro", "disk", *options)
    tries = "mount -o remount,bind,rw /mnt/ro; mkdir -p /mnt/b; mount --bind /mnt/ro /mnt/b; "
    tries += "mount -o remount,bind,rw /mnt/b; echo x > /mnt/b/new; echo x > /mnt/ro/new; umount /mnt/b"
    said = _sh(guest, tries)
    assert said.count("permission denied") == 2, said
    assert said.count("Read-only file system") == 2, said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert _sh(guest, "ls /dev/.podium") == ""
    _remove(guest, "ro")
    assert "No such file" in _sh(guest, "ls /mnt/ro")


def test_udev_works_inside(guest: Podium) -> None:
    """As with LXD, once it has a device: what binds to one, or asks for its properties, waits for udev."""
    _add(guest, "later", "unix-hotplug", "vendorid=ffff", "productid=ffff")
    guest.lxc("restart", "--force", NAME)
    assert _until(lambda: _sh(guest, "systemctl is-active systemd-udevd") == "active")
    assert _until(lambda: "USEC_INITIALIZED=" in _sh(guest, "udevadm info /sys/class/net/eth0"))
    assert "ermission denied" in _sh(guest, "echo 1 > /sys/kernel/mm/ksm/run")


def test_udev_inside_hears_of_devices_that_come_and_go(guest: Podium) -> None:
    """Sent as the kernel's own, by root of the guest: udev believes nobody else."""
    found = [device for device in HostFacts().devices() if device.subsystem != "usb"]
    if not found:
        pytest.skip("no device of this host has the ids of a maker")
    device = found[0]
    path = uevents.describe(device.node.kind, device.node.major, device.node.minor)["DEVPATH"]
    listen = "timeout 8 udevadm monitor --kernel --udev > /root/heard 2>&1 & sleep 1; echo ready"
    assert _sh(guest, f"systemd-run -q sh -c '{listen}; wait'") == ""
    assert _until(lambda: "KERNEL" in _sh(guest, "cat /root/heard"))
    ids = (f"vendorid={device.vendor}", f"productid={device.product}")
    _add(guest, "hot", "unix-hotplug", *ids)
    _remove(guest, "hot")
    for word in ("add", "remove"):
        for who in ("KERNEL", "UDEV"):
            line = f"grep -E '^{who}.*{word} +{path} ' /root/heard"
            assert _until(lambda line=line: path in _sh(guest, line)), (who, word)  # type: ignore[misc]
