"""The files of an instance by SFTP: `lxc file mount`, and the bare endpoint below it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import free_port
from tests.e2e.conftest import Podium
from tests.sftp_client import Sftp

_UPGRADE = (
    "GET /1.0/instances/{name}/sftp HTTP/1.1\r\nHost: podium\r\n"
    "Connection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
)


@pytest.fixture(scope="module")
def mounted(podium: Podium) -> Iterator[Podium]:
    podium.lxc("init", "debian/12", "sftp")
    yield podium
    podium.run("delete", "-f", "sftp")


def asked(podium: Podium, name: str = "sftp", protocol: str = "sftp") -> tuple[socket.socket, bytes]:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(20)
    line.connect(str(podium.state_dir / "unix.socket"))
    line.sendall(_UPGRADE.format(name=name, protocol=protocol).encode())
    return line, line.recv(4096)


def root_mounts(podium: Podium) -> list[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    return [line for line in lines if f"{podium.state_dir}/instances/" in line]


def test_files_of_a_stopped_instance_by_the_stock_client(mounted: Podium, tmp_path: Path) -> None:
    """`lxc file mount --listen` speaks SSH to others and SFTP to us."""
    (tmp_path / "up").write_bytes(os.urandom(3 << 20))
    batch = tmp_path / "batch"
    batch.write_text(f"put {tmp_path}/up /root/up\nget /root/up {tmp_path}/down\nls -l /root/up\n")
    port = free_port()
    environment = {**mounted.environment, "LXD_DIR": str(mounted.state_dir), "LXD_CONF": str(mounted.conf)}
    argv = ["lxc", "file", "mount", "sftp", "--listen", f"127.0.0.1:{port}", "--no-auth"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as serving:
        assert serving.stdout
        assert b"listening" in serving.stdout.readline()
        options = ["-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        client = ["sftp", *options, "-P", str(port), "-b", str(batch), "x@127.0.0.1"]
        done = subprocess.run(client, capture_output=True, timeout=60, check=False)
        serving.kill()

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()
    mounted.lxc("file", "pull", "sftp/root/up", str(tmp_path / "pulled"))
    assert (tmp_path / "pulled").read_bytes() == (tmp_path / "up").read_bytes()


def test_a_session_ends_when_the_instance_starts(mounted: Podium) -> None:
    """It looked at a root that nothing ran in; the next one sees what runs. Nothing stays mounted."""
    line, answer = asked(mounted)
    assert answer == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sftp\r\nConnection: Upgrade\r\n\r\n"
    client = Sftp(line.sendall, line.recv)
    client.init()
    client.put(b"/root/stopped", b"1")

    mounted.lxc("start", "sftp")

    assert line.recv(1) == b""
    line.close()
    line, _ = asked(mounted)
    client = Sftp(line.sendall, line.recv)
    client.init()
    assert client.get(b"/root/stopped") == b"1"
    client.put(b"/root/running", b"2")
    assert mounted.lxc("exec", "sftp", "--", "cat", "/root/running") == "2"
    mounted.lxc("stop", "-f", "sftp")
    assert line.recv(1) == b""
    line.close()
    deadline = time.monotonic() + 10
    while root_mounts(mounted):
        assert time.monotonic() < deadline, root_mounts(mounted)
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("name", "protocol", "status", "why"),
    [
        ("none", "sftp", b"404", b"Instance not found"),
        ("sftp", "websocket", b"400", b"Missing or invalid upgrade header"),
    ],
)
def test_what_cannot_be_is_refused_before_the_upgrade(
    mounted: Podium, name: str, protocol: str, status: bytes, why: bytes
) -> None:
    """In LXD's envelope, as any other request."""
    line, answer = asked(mounted, name, protocol)
    line.close()
    assert answer.split()[1] == status
    assert why in answer


def test_a_client_that_goes_takes_its_session_along(mounted: Podium) -> None:
    """No process and no mount is left for a connection that is gone."""
    line, _ = asked(mounted)
    Sftp(line.sendall, line.recv).init()
    assert root_mounts(mounted)

    line.close()

    deadline = time.monotonic() + 10
    while root_mounts(mounted):
        assert time.monotonic() < deadline
        time.sleep(0.1)
