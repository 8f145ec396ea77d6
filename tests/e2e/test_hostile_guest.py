"""Root inside a container does its worst; whoever looks from outside gets an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e import raw_http
from tests.e2e.conftest import Podium, unharmed

_DEEDS = r"""
ip link add "$(printf 'x\377')" type veth peer name "$(printf 'y\034z')"
cd /root && mkdir folder && mkfifo pipe && ln -s pipe to-pipe && ln -s / everywhere && ln -s loop loop
ln -s "$(printf 't\377')" link && touch "folder/$(printf 'f\377')"
ln -s /proc/sys/kernel/core_uses_pid to-kernel
for at in 253402300800 -62135596801 9223372036854775807; do touch -d @$at past$at; done
touch -d 9999-01-01 future && truncate -s 4T sparse
chmod 7777 future && printf '\033[2J\377' > folder/plain
"""
_PATHS = (
    "folder",
    "pipe",
    "to-pipe",
    "everywhere",
    "loop",
    "link",
    "future",
    *("past253402300800", "past-62135596801", "past9223372036854775807"),
    "folder/plain",
    "folder/f\udcff",
)


@pytest.fixture(scope="module")
def rogue(podium: Podium) -> Iterator[str]:
    podium.lxc("launch", "debian/12", "rogue")
    podium.lxc("exec", "rogue", "--", "sh", "-ec", _DEEDS)
    with unharmed(podium):
        yield "rogue"
    podium.lxc("delete", "-f", "rogue")


def test_everybody_is_still_listed(podium: Podium, rogue: str) -> None:
    """One guest's interface names once hid all instances."""
    assert rogue in podium.lxc("list", "--format", "csv", "-c", "ns4")
    assert (
        f'name="{rogue}"' in raw_http.send(podium.settings.socket_path, "GET", "/1.0/metrics").body.decode()
    )
    podium.lxc("info", rogue)


@pytest.mark.parametrize("name", _PATHS)
def test_every_file_is_read_or_refused(podium: Podium, rogue: str, name: str) -> None:
    path = quote(f"/root/{name}".encode("utf-8", "surrogateescape"))
    for method in ("GET", "HEAD"):
        reply = raw_http.send(
            podium.settings.socket_path, method, f"/1.0/instances/{rogue}/files?path={path}"
        )
        assert 200 <= reply.status < 300 or 400 <= reply.status < 500, reply


def test_a_link_to_any_bytes_is_read_as_it_is(podium: Podium, rogue: str) -> None:
    target = f"/1.0/instances/{rogue}/files?path=/root/link"
    assert raw_http.send(podium.settings.socket_path, "GET", target).body == b"t\xff"


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/core_uses_pid", "/root/to-kernel", "/proc/kmsg", "/sys/fs/cgroup/x", "/proc/x"]
)
def test_the_files_of_a_guest_do_not_include_the_hosts_kernel(podium: Podium, rogue: str, path: str) -> None:
    """The client of one container could become the host's root by a write that the guest is refused."""
    before = Path("/proc/sys/kernel/core_uses_pid").read_text()
    target = f"/1.0/instances/{rogue}/files?path={path}"

    for method in ("GET", "POST", "DELETE"):
        reply = raw_http.send(
            podium.settings.socket_path, method, target, body=b"1" if method == "POST" else b""
        )
        assert reply.is_refusal() or path == "/root/to-kernel", reply

    assert Path("/proc/sys/kernel/core_uses_pid").read_text() == before


@pytest.mark.parametrize(
    "asked",
    [
        {"user": 65536},
        {"group": 65536},
        {"user": 4294967295},
        {"command": ["echo", "x" * 200_000]},
        {"command": ["a\0b"]},
        {"environment": {"A": "x" * 200_000}},
        {"environment": {"A=B": "x"}},
        {"environment": {"A\nB": "x"}},
        {"environment": {"A": "a\0b"}},
        {"environment": {"": "x"}},
        {"cwd": "/" * 200_000},
    ],
    ids=lambda asked: str(asked)[:30],
)
def test_a_command_that_cannot_run_is_refused_at_once(
    podium: Podium, rogue: str, asked: dict[str, Any]
) -> None:
    """What is outside the id map, or what no kernel takes as an argument."""
    body = json.dumps({"command": ["id"], **asked}).encode()
    reply = raw_http.send(podium.settings.socket_path, "POST", f"/1.0/instances/{rogue}/exec", body)

    assert reply.is_refusal(), reply


def test_a_command_inherits_nothing_of_the_host(podium: Podium, rogue: str) -> None:
    """No descriptor but its own three, no folder of the host's, none of its processes or sockets."""
    script = "ls /proc/self/fd | wc -l; ls -d /proc/[0-9]* | wc -l; grep -c command /proc/net/unix; pwd"
    found = podium.lxc("exec", rogue, "--cwd", "/proc/self/fd/3", "--", "sh", "-c", script).split()

    assert found[0] == "4", "0, 1, 2 and the folder that ls reads"
    assert int(found[1]) < 60
    assert found[2:] == ["0", "/"]


_DENIED = (
    "echo x > /proc/sys/kernel/core_pattern",
    "echo x > /proc/sys/kernel/modprobe",
    "echo 0 > /sys/kernel/mm/transparent_hugepage/enabled",
    "mount -o remount,rw /sys",
    "mknod /root/disk b 8 0",
    "mknod /root/mem c 1 1",
    "dmesg",
    "mount -t debugfs d /mnt",
    "mount -t tracefs d /mnt",
    "mount /dev/loop0 /mnt",
    "mkdir -p /cg; mount -t cgroup -o memory c /cg; echo /x > /cg/release_agent",
    "ls /sys/kernel/debug/*",
    "ls /sys/kernel/tracing/*",
    "ls /sys/kernel/security/*",
    "cat /proc/kcore",
    "cat /proc/sysrq-trigger",
)


@pytest.mark.parametrize("deed", _DENIED)
def test_root_in_a_container_may_not(podium: Podium, rogue: str, deed: str) -> None:
    assert podium.run("exec", rogue, "--", "sh", "-ec", deed).returncode, deed


def test_a_guest_reaches_no_service_of_the_host_but_dns(podium: Podium, rogue: str) -> None:
    """Metrics, gRPC and HTTPS of this member listen at loopback; a guest may route that to the bridge."""
    settings = podium.settings
    ports = [settings.metrics_port(name) for name in ("gateway", "runtime", "network", "etcd")]
    ports += [int(address.rpartition(":")[2]) for address in (settings.https_address, settings.rpc_base)]
    probes = "; ".join(
        f"timeout 1 bash -c '</dev/tcp/'$host/{port} 2>/dev/null && echo open {port}" for port in (*ports, 53)
    )
    script = f"""
        until [ "$gateway" ]; do gateway=$(ip -4 route show default | cut -d' ' -f3); sleep 0.1; done
        ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.0/8 dev lo table local
        ip route add 127.0.0.1/32 via $gateway
        sysctl -qw net.ipv4.conf.all.route_localnet=1
        for host in $gateway 127.0.0.1; do {probes}; done; true"""

    found = podium.lxc("exec", rogue, "--", "bash", "-c", script).splitlines()

    podium.lxc("exec", rogue, "--", "sh", "-c", "ip route del 127.0.0.1/32; ip addr add 127.0.0.1/8 dev lo")
    assert found == ["open 53"]
