"""The guest API from inside a container, with what a minimal Debian has to speak to a socket: perl."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Podium

CLIENT = rb"""
use IO::Socket::UNIX; my ($m, $p, $b) = @ARGV; $| = 1;
my $s = IO::Socket::UNIX->new(Peer => "/dev/lxd/sock") or die "connect: $!\n";
my $h = "$m $p HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n";
$h .= "Content-Length: " . length($b) . "\r\n" if defined $b;
print $s "$h\r\n" . ($b // "");
while (sysread($s, my $x, 4096)) { print $x }
"""


@pytest.fixture(scope="module")
def guest(podium: Podium) -> Iterator[Podium]:
    podium.lxc("launch", "debian/12", "gst", "-c", "user.foo=bar", "-c", "user.meta-data=x: y")
    podium.lxc("file", "push", "-", "gst/usr/local/bin/ask", "--mode", "0755", input=CLIENT)
    yield podium
    podium.lxc("delete", "-f", "gst")


def asked(
    podium: Podium, path: str, method: str = "GET", body: str | None = None, user: int = 0
) -> tuple[int, str]:
    """Return the status and the body of one request from inside."""
    argv = ["exec", "gst", "--user", str(user), "--", "perl", "/usr/local/bin/ask", method, path]
    answer = podium.lxc(*argv, *([body] if body is not None else []))
    head, _, rest = answer.partition("\r\n\r\n")
    return int(head.split()[1]), rest


def test_a_guest_reads_what_is_meant_for_it(guest: Podium) -> None:
    """The answers of LXD 5.0.2, byte for byte where they matter to cloud-init."""
    config = guest.lxc("config", "get", "gst", "volatile.cloud-init.instance-id").strip()

    assert asked(guest, "/") == (200, '["/1.0"]\n')
    about = '{"state":"","api_version":"1.0","instance_type":"container","location":"none"}\n'
    assert asked(guest, "/1.0") == (200, about)
    assert asked(guest, "/1.0/config") == (200, '["/1.0/config/user.foo","/1.0/config/user.meta-data"]\n')
    assert asked(guest, "/1.0/config/user.foo") == (200, "bar")
    assert asked(guest, "/1.0/config/user.nope") == (404, "not found\n")
    assert asked(guest, "/1.0/config/volatile.uuid") == (403, "not authorized\n")
    meta = f"#cloud-config\ninstance-id: {config}\nlocal-hostname: gst\nx: y"
    assert asked(guest, "/1.0/meta-data") == (200, meta)
    assert '"hwaddr":"00:16:3e:' in asked(guest, "/1.0/devices")[1]
    assert asked(guest, "/1.0/nope") == (404, "404 page not found\n")
    assert asked(guest, f"/1.0/images/{'0' * 64}/export") == (403, "not authorized\n")
    assert asked(guest, "/1.0", "DELETE")[0] == 405


def test_only_the_guests_root_is_answered(guest: Podium) -> None:
    """User data may hold secrets; every user of the guest can reach the socket."""
    assert asked(guest, "/1.0/config/user.foo", user=1000) == (401, "Access denied for non-root user\n")


def test_no_user_of_the_host_gets_through_the_folder(guest: Podium) -> None:
    """The socket is world-writable inside, where that is the guest's own world only."""
    id = guest.lxc("config", "get", "gst", "volatile.uuid").strip()
    path = guest.state_dir / "guests" / id / "lxd" / "sock"
    assert path.is_socket()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(12345)
        os.setuid(12345)
        try:
            path.stat()
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_guest_says_that_it_is_ready(guest: Podium) -> None:
    """Seen in the list, and told as an event; what is no state is refused."""
    assert asked(guest, "/1.0", "PATCH", '{"state": "Bogus"}')[0] == 400
    assert asked(guest, "/1.0", "PATCH", '{"state": "Ready"}')[0] == 200

    assert guest.lxc("list", "gst", "-f", "csv", "-c", "s").strip() == "READY"
    assert '"state":"Ready"' in asked(guest, "/1.0")[1]
    assert asked(guest, "/1.0", "PATCH", '{"state": "Started"}')[0] == 200
    assert guest.lxc("list", "gst", "-f", "csv", "-c", "s").strip() == "RUNNING"


def test_it_goes_and_comes_while_the_guest_runs(guest: Podium) -> None:
    """`security.devlxd` is live, as it is in LXD: the folder itself goes."""
    there = ("exec", "gst", "--", "test", "-e", "/dev/lxd")
    guest.lxc("config", "set", "gst", "security.devlxd=false")
    assert guest.run(*there).returncode == 1
    guest.lxc("config", "set", "gst", "user.other=1")
    assert guest.run(*there).returncode == 1

    guest.lxc("config", "set", "gst", "security.devlxd=true")

    assert asked(guest, "/1.0/config/user.foo") == (200, "bar")
    guest.lxc("config", "unset", "gst", "user.other")
    mounts = guest.lxc("exec", "gst", "--", "cat", "/proc/mounts").splitlines()
    assert [line.split()[2] for line in mounts if "/dev/lxd" in line] == ["tmpfs"]


def test_changes_are_told_as_they_happen(guest: Podium) -> None:
    """One line for each, in the order in which they came into force."""
    environment = {**guest.environment, "LXD_DIR": str(guest.state_dir), "LXD_CONF": str(guest.conf)}
    argv = ["lxc", "exec", "gst", "--", "perl", "/usr/local/bin/ask", "GET", "/1.0/events"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as listening:
        assert listening.stdout
        while listening.stdout.readline() != b"\r\n":
            pass
        guest.lxc("config", "set", "gst", "user.foo=baz", "limits.processes=500")
        guest.lxc("config", "device", "add", "gst", "none", "none")
        found: list[dict[str, Any]] = []
        while len(found) < 2:
            line = listening.stdout.readline()
            found += [json.loads(line)] if line.startswith(b"{") else []
        listening.kill()

    assert found[0]["metadata"] == {"key": "user.foo", "old_value": "bar", "value": "baz"}
    assert found[1]["metadata"] == {"action": "added", "config": {"type": "none"}, "name": "none"}
    guest.lxc("config", "set", "gst", "user.foo=bar")
    guest.lxc("config", "device", "remove", "gst", "none")


def test_the_socket_comes_back_when_the_gateway_does(guest: Podium) -> None:
    """The folder is mounted, not the socket; so a running guest finds the next one at the same place."""
    before = guest.processes()["gateway"]
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while guest.processes().get("gateway") in (before, None) or guest.run("list").returncode:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert asked(guest, "/1.0/config/user.foo") == (200, "bar")


def test_a_guest_hears_of_its_stop(guest: Podium) -> None:
    """Only who asks for hooks is told, and before init is."""
    environment = {**guest.environment, "LXD_DIR": str(guest.state_dir), "LXD_CONF": str(guest.conf)}
    argv = ["lxc", "exec", "gst", "--", "perl", "/usr/local/bin/ask", "GET", "/1.0/events?type=hook"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as listening:
        assert listening.stdout
        while listening.stdout.readline() != b"\r\n":
            pass
        guest.lxc("stop", "gst")
        told = listening.stdout.read()
    assert b'{"action":"stopping"}' in told
