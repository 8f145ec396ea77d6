"""Keys of instances, read where they take effect: in the kernel's files, or inside."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy import lxcfs
from tests.e2e.conftest import Podium

_V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
_AT_START = {
    "limits.kernel.nofile": "1000:2000",
    "limits.kernel.core": "0",
    "linux.sysctl.net.ipv4.ip_forward": "1",
    "linux.sysctl.kernel.shmmax": "12345",
    "environment.GREETING": "good day",
    "security.syscalls.deny": "chroot errno 1",
    "security.idmap.size": "100000",
    "security.nesting": "true",
    "limits.memory": "400MiB",
    "limits.cpu": "1",
    "limits.processes": "400",
}


@pytest.fixture(scope="module")
def keyed(podium: Podium) -> Iterator[str]:
    """A container that was started with keys."""
    keys = [word for key, value in _AT_START.items() for word in ("-c", f"{key}={value}")]
    podium.lxc("launch", "debian/12", "keyed", *keys)
    yield "keyed"
    podium.lxc("delete", "-f", "keyed")


def sh(podium: Podium, name: str, script: str) -> str:
    return podium.lxc("exec", name, "--", "sh", "-c", script).strip()


def cgroup(podium: Podium, name: str, file: str) -> Path:
    id = podium.lxc("config", "get", name, "volatile.uuid").strip()
    top = Path("/sys/fs/cgroup") if _V2 else Path("/sys/fs/cgroup", file.partition(".")[0])
    return top / "podium" / id / file


def until(what: Callable[[], object], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def pid_of(podium: Podium, name: str) -> int:
    return int(json.loads(podium.lxc("query", f"/1.0/instances/{name}/state"))["pid"])


def status(podium: Podium, name: str) -> str:
    return podium.lxc("list", "-f", "csv", "-c", "s", f"^{name}$").strip()


def test_resource_limits_are_those_of_init(podium: Podium, keyed: str) -> None:
    limits = sh(podium, keyed, "cat /proc/1/limits").splitlines()
    (files,) = (line.split() for line in limits if line.startswith("Max open files"))
    (core,) = (line.split() for line in limits if line.startswith("Max core file size"))
    assert files[4] == "2000"
    assert files[3] in ("1000", "2000")  # systemd soon takes as many as it may
    assert core[4:6] == ["0", "0"]


def test_sysctls_are_set_inside_and_not_on_the_host(podium: Podium, keyed: str) -> None:
    host = Path("/proc/sys/kernel/shmmax").read_text()
    assert sh(podium, keyed, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax") == "1\n12345"
    assert Path("/proc/sys/kernel/shmmax").read_text() == host


def test_variables_reach_init_and_commands(podium: Podium, keyed: str) -> None:
    assert "GREETING=good day" in sh(podium, keyed, "tr '\\0' '\\n' < /proc/1/environ").splitlines()
    assert sh(podium, keyed, "echo $GREETING") == "good day"


def test_a_denied_system_call_fails_also_in_commands(podium: Podium, keyed: str) -> None:
    done = podium.run("exec", keyed, "--", "chroot", "/", "true")
    assert b"Operation not permitted" in done.stderr


def test_it_has_as_many_ids_as_were_asked_for(podium: Podium, keyed: str) -> None:
    assert sh(podium, keyed, "cat /proc/1/uid_map").split()[2] == "100000"


def test_a_nested_container_may_mount_its_own_proc(podium: Podium, keyed: str) -> None:
    assert sh(podium, keyed, "unshare -Urpf --mount-proc sh -c 'echo $$'") == "1"


def test_inside_memory_and_processors_are_those_of_the_limits(podium: Podium, keyed: str) -> None:
    """By lxcfs, which set-up starts."""
    assert lxcfs.serves(podium.state_dir / "lxcfs") or lxcfs.serves(lxcfs.HOST)
    assert sh(podium, keyed, "free -m | awk '/^Mem/ {print $2}'") == "400"
    assert sh(podium, keyed, "nproc; grep -c ^processor /proc/cpuinfo") == "1\n1"


@pytest.mark.parametrize(
    ("key", "value", "v1", "v2"),
    [
        ("limits.memory", "512MiB", ("memory.limit_in_bytes", "536870912"), ("memory.max", "536870912")),
        ("limits.memory.swap", "false", ("memory.swappiness", "0"), ("memory.swap.max", "0")),
        ("limits.memory.swap.priority", "1", ("memory.swappiness", "69"), None),
        ("limits.processes", "500", ("pids.max", "500"), ("pids.max", "500")),
        ("limits.cpu", "0-0", ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
        ("limits.cpu.allowance", "20ms/100ms", ("cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 100000")),
        ("limits.cpu.allowance", "50%", ("cpu.shares", "512"), ("cpu.weight", "50")),
        ("limits.cpu.priority", "5", ("cpu.shares", "1019"), ("cpu.weight", "99")),
        ("limits.disk.priority", "7", ("blkio.bfq.weight", "700"), ("io.weight", "default 700")),
    ],
)
def test_a_change_of_a_limit_reaches_the_kernel_at_once(
    podium: Podium, keyed: str, key: str, value: str, v1: tuple[str, str], v2: tuple[str, str] | None
) -> None:
    """And its removal too: what a key set is taken back."""
    found = v2 if _V2 else v1
    if found is None or not cgroup(podium, keyed, found[0]).exists():
        pytest.skip("this kernel has no such file")
    path, before = cgroup(podium, keyed, found[0]), cgroup(podium, keyed, found[0]).read_text()
    podium.lxc("config", "set", keyed, f"{key}={value}")
    assert path.read_text().strip() == found[1]
    old = _AT_START.get(key, "")
    podium.lxc("config", "set", keyed, f"{key}={old}")
    assert path.read_text() == before


def test_two_that_ask_for_one_processor_do_not_share_it(podium: Podium, keyed: str) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("there is but one")
    podium.lxc("launch", "debian/12", "other", "-c", "limits.cpu=1")

    def apart() -> bool:
        sets = {cgroup(podium, name, "cpuset.cpus").read_text() for name in (keyed, "other")}
        return len(sets) == 2

    until(apart)
    podium.lxc("delete", "-f", "other")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("limits.memory=10QB", "Error: Invalid config: Invalid value: 10QB"),
        ("nonsense=1", "Error: Invalid config: Unknown configuration key: nonsense"),
        ("raw.idmap=foo", 'Error: Failed to get ID map: Invalid ID map line "foo"'),
        ("limits.kernel.nofile=x", "Error: Initialize LXC: Failed to set LXC config: lxc.prlimit.nofile=x"),
        ("security.syscalls.deny=nonsense", "Error: Unknown system call 'nonsense'"),
        ("volatile.nonsense=1", "Error: Invalid config: Unknown configuration key: volatile.nonsense"),
    ],
)
def test_refusals_are_lxds(podium: Podium, keyed: str, setting: str, said: str) -> None:
    done = podium.run("config", "set", keyed, setting)
    assert (done.returncode, done.stderr.decode().strip()) == (1, said)


def test_files_stay_the_same_whatever_ids_a_container_has(podium: Podium) -> None:
    """Privileged, then with ids of its own: nothing is shifted, since layers hold the ids as seen inside."""
    podium.lxc("launch", "debian/12", "root", "-c", "security.privileged=true")
    assert sh(podium, "root", "cat /proc/1/uid_map").split() == ["0", "0", "4294967295"]
    sh(podium, "root", "echo kept > /root/file; chown 1000:1001 /root/file")
    podium.lxc("config", "unset", "root", "security.privileged")
    podium.lxc("restart", "-f", "root")
    assert sh(podium, "root", "cat /proc/1/uid_map").split()[2] == "65536"
    assert sh(podium, "root", "stat -c %u:%g /root/file; cat /root/file") == "1000:1001\nkept"
    podium.lxc("delete", "-f", "root")


def test_protected_ones_stay_and_those_not_to_start_stay_down(podium: Podium) -> None:
    keys = ("-c", "security.protection.delete=true", "-c", "security.protection.start=true")
    podium.lxc("init", "debian/12", "safe", *keys)
    assert "Container is protected" in podium.run("delete", "safe").stderr.decode()
    assert "protected from being started" in podium.run("start", "safe").stderr.decode()
    podium.lxc("config", "set", "safe", "security.protection.delete=", "security.protection.start=")
    podium.lxc("delete", "safe")


def test_a_container_whose_init_is_killed_comes_back(podium: Podium) -> None:
    """And with a health check its state is told."""
    podium.lxc(
        *("launch", "debian/12", "phoenix", "-c", "restart.policy=on-failure"),
        *("-c", "health.exec=test ! -e /sick", "-c", "health.interval=1", "-c", "health.retries=1"),
    )
    first = pid_of(podium, "phoenix")
    os.kill(first, signal.SIGKILL)
    until(lambda: status(podium, "phoenix") == "RUNNING" and pid_of(podium, "phoenix") not in (0, first))
    assert podium.lxc("config", "get", "phoenix", "volatile.restarts").strip() == "1"
    until(lambda: podium.lxc("config", "get", "phoenix", "volatile.health").strip() == "healthy")
    second = pid_of(podium, "phoenix")
    sh(podium, "phoenix", "touch /sick")
    until(lambda: status(podium, "phoenix") == "RUNNING" and pid_of(podium, "phoenix") not in (0, second))
    podium.lxc("stop", "-f", "phoenix")
    time.sleep(2)
    assert status(podium, "phoenix") == "STOPPED"
    podium.lxc("delete", "phoenix")


def test_a_reboot_from_inside_does_not_delete_an_ephemeral_one(podium: Podium) -> None:
    podium.lxc("launch", "debian/12", "brief", "--ephemeral")
    first = pid_of(podium, "brief")
    until(lambda: podium.run("exec", "brief", "--", "systemctl", "reboot").returncode == 0)
    until(lambda: status(podium, "brief") == "RUNNING" and pid_of(podium, "brief") not in (0, first))
    podium.lxc("stop", "-f", "brief")
    until(lambda: "brief" not in podium.lxc("list", "-f", "csv", "-c", "n"))
