"""The host is booted, the supervisor dies, guests end while nobody looks: all is picked up again."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import purge
from services.runtime.kernel.boot import BootMarker
from tests.faults.harness import SERVICES, Victim, wait_for, without

PREFIX = "fault-host-"
# systemd(1), SIGNALS: at once, without stopping units first.
POWEROFF, REBOOT = signal.SIGRTMIN + 14, signal.SIGRTMIN + 15


@pytest.fixture(autouse=True)
def tidy(victim: Victim, no_leaks: None) -> Iterator[None]:
    yield
    victim.wait_until_it_answers()
    victim.side.delete_all(PREFIX)


def launch(victim: Victim, name: str, *options: str) -> int:
    victim.side.lxc("launch", victim.image, f"{PREFIX}{name}", *options)
    return victim.pids(f"{PREFIX}{name}")[f"{PREFIX}{name}"]


def booted(victim: Victim, name: str, *options: str) -> int:
    """Launch, and wait until its init listens to signals and commands."""
    pid = launch(victim, name, *options)

    def is_up() -> bool:
        said = victim.side.try_lxc("exec", f"{PREFIX}{name}", "--", "systemctl", "is-system-running")
        return said.stdout.strip() in (b"running", b"degraded")

    wait_for(is_up, 60, f"the boot of {name}")
    return pid


def state(victim: Victim, name: str) -> tuple[str, int]:
    item = victim.instances(f"{PREFIX}{name}")[f"{PREFIX}{name}"]
    return item["status"], int(item["state"]["pid"])


def ended(pid: int) -> bool:
    """Whether it runs no more; the host may take seconds to collect what is left of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_reboot_from_inside_is_told_apart_from_a_poweroff(victim: Victim) -> None:
    pid = booted(victim, "a")
    victim.side.try_lxc("exec", f"{PREFIX}a", "--", "systemctl", "reboot", timeout_s=30)
    wait_for(lambda: state(victim, "a")[0] == "Running" and state(victim, "a")[1] != pid, 60, "the reboot")
    victim.side.try_lxc("exec", f"{PREFIX}a", "--", "poweroff", "-f", timeout_s=30)
    wait_for(lambda: state(victim, "a") == ("Stopped", 0), 60, "the poweroff")


def test_ends_that_nobody_saw_are_picked_up_at_the_next_start(victim: Victim) -> None:
    """Poweroff, reboot and the end of an ephemeral instance, all while the runtime service is dead."""
    off, again, gone = (booted(victim, n, *o) for n, o in (("off", ()), ("again", ()), ("gone", ("-e",))))
    with without(victim, "runtime"):
        os.kill(off, POWEROFF)
        os.kill(again, REBOOT)
        os.kill(gone, POWEROFF)
        wait_for(lambda: all(ended(pid) for pid in (off, again, gone)), 30, "the end of the guests")
    victim.wait_until_it_answers()
    wait_for(lambda: state(victim, "off") == ("Stopped", 0), 30, "the poweroff")
    wait_for(
        lambda: state(victim, "again")[0] == "Running" and state(victim, "again")[1] > 0, 30, "the reboot"
    )
    wait_for(lambda: not victim.instances(f"{PREFIX}gone"), 30, "the end of the ephemeral one")


def test_a_guest_whose_monitor_was_killed_is_not_left_without_an_owner(victim: Victim) -> None:
    """Its init would live on, and nobody could stop it."""
    pid = launch(victim, "m")
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: state(victim, "m") == ("Stopped", 0) and ended(pid), 30, "the end of the guest")
    victim.side.lxc("start", f"{PREFIX}m")


def test_nics_of_a_guest_that_ended_unseen_leave_nothing_and_give_back_what_they_took(
    victim: Victim,
) -> None:
    """Its monitor too, while neither of the services that look after NICs lives."""
    word = secrets.token_hex(3)
    parent, wire, bridge = f"pf{word}a", f"pf{word}b", f"pf{word}r"
    subprocess.run(["ip", "link", "add", parent, "type", "veth", "peer", "name", wire], check=True)
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", wire, "up"], check=True)
    before = Path(f"/sys/class/net/{parent}/address").read_text()
    try:
        launch(victim, "n")
        for options in (
            ("p", "nictype=physical", f"parent={parent}", "hwaddr=00:16:3e:66:00:01", "name=lan0"),
            ("r", "nictype=routed", f"parent={wire}", "ipv4.address=192.0.2.66"),
            ("b", "nictype=bridged", f"parent={bridge}", "security.mac_filtering=true"),
        ):
            victim.side.lxc("config", "device", "add", f"{PREFIX}n", options[0], "nic", *options[1:])
        pid = state(victim, "n")[1]
        monitor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        with without(victim, "runtime"), without(victim, "network"):
            os.kill(monitor, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: ended(pid), 30, "the end of the guest")
        victim.wait_until_it_answers()
        wait_for(lambda: Path(f"/sys/class/net/{parent}/address").exists(), 30, "the interface")
        wait_for(lambda: state(victim, "n") == ("Stopped", 0), 30, "the end of the instance")
        assert Path(f"/sys/class/net/{parent}/address").read_text() == before
        victim.side.lxc("delete", f"{PREFIX}n")
    finally:
        for name in (wire, bridge):
            subprocess.run(["ip", "link", "delete", name], check=False)


def test_a_new_supervisor_takes_over_from_a_killed_one(victim: Victim) -> None:
    """The services go on without it; the next one finds them and does not start a second set."""
    pid, old, environ = launch(victim, "s"), victim.processes(), victim.environ()
    os.kill(victim.supervisor(), signal.SIGKILL)
    assert victim.answers()
    subprocess.run([sys.executable, "-m", "deploy.supervisor"], env=environ, check=True, timeout=60)
    victim.wait_until_it_answers()
    wait_for(lambda: set(victim.processes()) == {*SERVICES, "etcd"}, 30, "all processes")
    assert not set(victim.processes().values()) & set(old.values())
    wait_for(lambda: all(ended(p) for p in old.values()), 30, "the end of the old processes")
    assert state(victim, "s") == ("Running", pid)
    assert victim.side.lxc("exec", f"{PREFIX}s", "--", "echo", "here") == "here\n"


def test_after_a_boot_of_the_host_everything_is_as_it_should(victim: Victim) -> None:
    """No process, mount, bridge or cgroup survived; only what lies on the disk is left."""
    launch(victim, "auto", "-c", "boot.autostart=true")
    launch(victim, "never", "-c", "boot.autostart=false")
    launch(victim, "last")
    launch(victim, "gone", "-e")
    launch(victim, "off")
    victim.side.lxc("stop", "--force", f"{PREFIX}off")
    victim.side.try_lxc("exec", f"{PREFIX}auto", "--", "sh", "-c", "echo kept > /root/file; sync")

    boot(victim)

    victim.wait_until_it_answers()
    for name in ("auto", "last"):
        wait_for(lambda name=name: state(victim, name)[0] == "Running", 60, f"the start of {name}")
    assert (state(victim, "never"), state(victim, "off")) == (("Stopped", 0), ("Stopped", 0))
    wait_for(lambda: not victim.instances(f"{PREFIX}gone"), 30, "the end of the ephemeral one")
    assert victim.side.lxc("exec", f"{PREFIX}auto", "--", "cat", "/root/file") == "kept\n"
    launch(victim, "new")


def boot(victim: Victim) -> None:
    """Take from the host what a boot takes from it, and start the member as the host would."""
    settings, environ = victim.settings(), victim.environ()
    processes = victim.processes()
    for pid in (victim.supervisor(), *processes.values()):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(ended(pid) for pid in processes.values()), 30, "the end of all processes")
    state_dir = settings.state_dir
    purge.kill_monitors(state_dir)
    bridges = [path.name for path in (state_dir / "networks").iterdir()]
    purge.remove_networks(state_dir)
    purge.unmount_below(state_dir)
    purge.remove_cgroups([path.name for path in (state_dir / "instances").iterdir()])
    assert not any(Path(f"/sys/class/net/{bridge}").exists() for bridge in bridges)
    BootMarker(state_dir).forget()
    subprocess.run([sys.executable, "-m", "deploy.supervisor"], env=environ, check=True, timeout=60)


def test_guests_see_their_own_figures_again_when_lxcfs_has_died(victim: Victim) -> None:
    """Every read of /proc/meminfo inside would fail until the guest is started anew."""
    pid_file = victim.state_dir / "lxcfs.pid"
    if not pid_file.exists():
        pytest.skip("the host has an lxcfs of its own, or none at all")
    launch(victim, "figures", "-c", "limits.memory=300MiB")

    def sees_its_limit() -> bool:
        said = victim.side.try_lxc("exec", f"{PREFIX}figures", "--", "cat", "/proc/meminfo").stdout
        return b"MemTotal:         307200 kB" in said

    assert sees_its_limit()
    for service in ("", "runtime"):
        died = int(pid_file.read_text())
        os.kill(died, signal.SIGKILL)
        if service:  # which then finds another one than that of the guest
            victim.kill(service)
        wait_for(sees_its_limit, 30, "the figures of the guest")
        assert int(pid_file.read_text()) != died
