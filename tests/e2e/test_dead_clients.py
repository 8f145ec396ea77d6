"""Clients that vanish, fall silent or talk nonsense on a websocket: commands end, memory stays."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import raw_http
from tests.e2e.conftest import Podium, unharmed
from tests.e2e.test_launch import wait_for

_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
_MASK = b"\0\0\0\0"


def _text(data: bytes) -> bytes:
    """Return a short text frame."""
    return b"\x81" + bytes([0x80 | len(data)]) + _MASK + data


@pytest.fixture(scope="module")
def guest(podium: Podium) -> Iterator[str]:
    podium.lxc("launch", "debian/12", "guest")
    with unharmed(podium):
        yield "guest"
    podium.lxc("delete", "-f", "guest")


class Exec:
    """A command whose channels this test holds by hand."""

    def __init__(self, podium: Podium, path: str, body: dict[str, Any], skip: tuple[str, ...] = ()) -> None:
        self._podium = podium
        data = json.dumps(body).encode()
        reply = raw_http.send(podium.settings.socket_path, "POST", path, data).envelope
        self.url = reply["operation"]
        fds = reply["metadata"]["metadata"]["fds"]
        self.sockets = {name: self._connect(secret) for name, secret in fds.items() if name not in skip}

    def _connect(self, secret: str) -> socket.socket:
        sock = raw_http.connect(self._podium.settings.socket_path)
        lines = [f"GET {self.url}/websocket?secret={secret} HTTP/1.1", "Host: podium"]
        lines += [f"{name}: {value}" for name, value in _UPGRADE.items()]
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(1)
        assert received.startswith(b"HTTP/1.1 101"), received
        return sock

    def vanish(self) -> None:
        """Close everything without a close frame."""
        for sock in self.sockets.values():
            sock.close()

    def is_over(self) -> bool:
        found = self._podium.rest.call("GET", self.url)
        return bool(found["status_code"] >= 200)


def start(podium: Podium, words: list[str], *, interactive: bool = False, skip: tuple[str, ...] = ()) -> Exec:
    body = {"command": words, "interactive": interactive, "wait-for-websocket": True, "environment": {}}
    return Exec(podium, "/1.0/instances/guest/exec", body, skip)


def is_running_inside(podium: Podium, words: str) -> bool:
    return podium.run("exec", "guest", "--", "pgrep", "-f", words).returncode == 0


@pytest.mark.parametrize("interactive", [True, False])
@pytest.mark.parametrize("skip", [(), ("control",)])
def test_a_silent_command_ends_with_its_client(
    podium: Podium, guest: str, interactive: bool, skip: tuple[str, ...]
) -> None:
    """Nothing is read or written, so only the vanished connection can tell."""
    if interactive and skip:
        pytest.skip("a terminal always has its control channel")
    number = f"9{int(interactive)}{len(skip)}77"
    command = start(podium, ["sleep", number], interactive=interactive, skip=skip)
    wait_for(lambda: is_running_inside(podium, f"^sleep {number}"))

    command.vanish()

    wait_for(command.is_over, 10)
    wait_for(lambda: not is_running_inside(podium, f"^sleep {number}"), 10)


def test_a_client_that_vanishes_at_once_leaves_no_command(podium: Podium, guest: str) -> None:
    """Whether the command began, began just then, or never will."""
    commands = []
    for n in range(20):
        commands.append(start(podium, ["sleep", f"9988{n:02}"]))
        commands[-1].vanish()
    wait_for(lambda: all(command.is_over() for command in commands), 15)
    assert not is_running_inside(podium, "^sleep 9988")


def test_a_command_that_ignores_the_hangup_ends_too(podium: Podium, guest: str) -> None:
    command = start(podium, ["sh", "-c", "trap '' HUP TERM INT; sleep 91177; sleep 91177"], interactive=True)
    wait_for(lambda: is_running_inside(podium, "^sleep 91177"))

    command.vanish()

    wait_for(command.is_over, 10)


def test_a_client_that_does_not_read_costs_no_memory(podium: Podium, guest: str) -> None:
    """The command is slowed down instead: nothing between the two grows."""
    before = _memory(podium)
    command = start(podium, ["sh", "-c", "yes | head -c 2000000000"])
    time.sleep(4)

    grown = {name: now - before[name] for name, now in _memory(podium).items()}
    assert max(grown.values()) < 40, f"MiB by process: {grown}"
    assert not command.is_over()

    command.vanish()
    wait_for(command.is_over, 10)


def _memory(podium: Podium) -> dict[str, float]:
    """Return the resident MiB of the processes that carry channels."""
    found = {}
    for name in ("gateway", "runtime"):
        pages = int(Path(f"/proc/{podium.processes()[name]}/statm").read_text().split()[1])
        found[name] = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return found


def test_a_client_that_never_connects_is_not_waited_for(podium: Podium, guest: str) -> None:
    command = start(podium, ["sleep", "93377"], skip=("0", "1", "2", "control"))

    wait_for(command.is_over, 10)

    assert "websockets" in podium.rest.call("GET", command.url)["err"]


def test_a_console_whose_client_vanished_is_free_again(podium: Podium, guest: str) -> None:
    for _ in range(3):
        console = Exec(podium, "/1.0/instances/guest/console", {"width": 80, "height": 25, "type": "console"})
        console.vanish()
        wait_for(console.is_over, 10)


def test_a_console_that_is_in_use_says_so(podium: Podium, guest: str) -> None:
    """Not in the engine's words, and without disturbing who has it."""
    path, body = "/1.0/instances/guest/console", {"width": 80, "height": 25, "type": "console"}
    first = Exec(podium, path, body)
    second = raw_http.send(podium.settings.socket_path, "POST", path, json.dumps(body).encode())
    assert second.is_refusal() and "in use by another client" in second.envelope["error"]
    assert not first.is_over()
    first.vanish()
    wait_for(first.is_over, 10)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\xff" + b"\x7f" * 8 + _MASK,
        b"\x81\x84" + _MASK + b"\xff\xfe\xfd\xfc",
        b"\x81\x02hi",
        b"\x83\x80" + _MASK,
        b"\x81\xfe\x10\x00" + _MASK + b"[" * 4096,
        b"\x81\x82" + _MASK + b"{}",
        _text(b'{"command": "signal", "signal": 99999}'),
        _text(b'{"command": "window-resize", "args": {"width": "-1", "height": "99999999"}}'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("channel", ["0", "control"])
def test_nonsense_on_a_channel_hurts_nobody_else(
    podium: Podium, guest: str, channel: str, frame: bytes
) -> None:
    command = start(podium, ["sleep", "94477"])
    command.sockets[channel].sendall(frame)
    command.sockets["1"].settimeout(0.2)
    time.sleep(0.1)
    command.vanish()
    wait_for(command.is_over, 10)
    assert podium.rest.call("GET", "/1.0")


def test_a_wrong_secret_and_a_plain_request_are_refused(podium: Podium, guest: str) -> None:
    command = start(podium, ["sleep", "95577"])
    path = podium.settings.socket_path
    wrong = raw_http.send(path, "GET", f"{command.url}/websocket?secret=no", b"", _UPGRADE)
    plain = raw_http.send(path, "GET", "/1.0/events")
    odd = [
        raw_http.send(path, "GET", "/1.0/events", b"", _UPGRADE | {"Sec-WebSocket-Key": k})
        for k in ("\udcff", "")
    ]
    command.vanish()
    assert all(reply.is_refusal() for reply in (wrong, plain, *odd))
    wait_for(command.is_over, 10)


def test_a_guest_that_floods_its_console_leaves_a_bounded_log(podium: Podium, guest: str) -> None:
    podium.lxc("exec", "guest", "--", "sh", "-c", "seq 1 1000000 > /dev/console; echo the end > /dev/console")
    wait_for(lambda: "the end" in podium.lxc("console", "guest", "--show-log"))
    folders = (podium.state_dir / "instances").iterdir()
    kept = [sum(path.stat().st_size for path in folder.glob("console.log*")) for folder in folders]
    assert 100_000 < max(kept) < 300_000
