"""The sockets of guests, on folders of the test's own."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.guests import doors
from gateway.guests.doors import Doors


class Greeter(asyncio.Protocol):
    """Tells who it thinks is there, and stays until the other side leaves."""

    def __init__(self, id: str, uid: int, left: Callable[[], None]) -> None:
        self._line, self._left = f"{id} {uid}".encode(), left

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._line)  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        self._left()


def a_folder(root: Path, id: str) -> Path:
    """What the runtime makes: whole before it appears."""
    new = root / f".{id}"
    (new / "lxd").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(f"{new}/lxd/sock")
    new.rename(root / id)
    return root / id / "lxd" / "sock"


async def _greeted(path: Path) -> tuple[str, asyncio.StreamWriter]:
    for _ in range(100):
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
            return (await asyncio.wait_for(reader.read(100), 1)).decode(), writer
        except (ConnectionRefusedError, TimeoutError):
            await asyncio.sleep(0.01)
    raise AssertionError("nobody serves the socket")


async def test_a_guest_is_known_by_its_socket_and_its_user(tmp_path: Path) -> None:
    """Neither is in the guest's hand; folders may be there before, or come later."""
    first = a_folder(tmp_path, "a")
    served = Doors(tmp_path, Greeter)
    served.start()
    second = a_folder(tmp_path, "b")

    lines = [await _greeted(first), await _greeted(second)]

    assert [line for line, _ in lines] == [f"a {os.getuid()}", f"b {os.getuid()}"]
    assert oct(first.stat().st_mode & 0o777) == "0o666"
    for _, writer in lines:
        writer.close()
    served.stop()


async def test_the_next_gateway_serves_the_same_path(tmp_path: Path) -> None:
    """A guest keeps its mount while services restart: what it connects to must come back by itself."""
    path = a_folder(tmp_path, "a")
    for _ in range(2):
        served = Doors(tmp_path, Greeter)
        served.start()
        line, writer = await _greeted(path)
        assert line.startswith("a ")
        writer.close()
        served.stop()


async def test_a_guest_that_opens_many_connections_waits_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's descriptors are everybody's: one guest gets few of them, and others still get theirs."""
    monkeypatch.setattr(doors, "MOST_PER_GUEST", 2)
    greedy, modest = a_folder(tmp_path, "greedy"), a_folder(tmp_path, "modest")
    served = Doors(tmp_path, Greeter)
    served.start()
    held = [await _greeted(greedy) for _ in range(2)]

    reader, third = await asyncio.open_unix_connection(str(greedy))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(100), 0.2)
    other, writer = await _greeted(modest)
    assert other.startswith("modest ")

    held[0][1].close()
    assert (await asyncio.wait_for(reader.read(100), 1)).startswith(b"greedy ")
    for w in (third, writer, held[1][1]):
        w.close()
    await asyncio.sleep(0.05)
    assert served.connections == 0
    served.stop()


async def test_five_hundred_guests_cost_little(tmp_path: Path) -> None:
    """A socket for each is a descriptor and a few objects; all are open within a blink (0.02 s)."""
    for number in range(500):
        a_folder(tmp_path, str(number))
    served = Doors(tmp_path, Greeter)
    loop = asyncio.get_running_loop()
    began = loop.time()

    served.start()

    assert loop.time() - began < 5, "minutes would show something quadratic; a busy machine may blink longer"
    line, writer = await _greeted(tmp_path / "499" / "lxd" / "sock")
    assert line.startswith("499 ")
    writer.close()
    served.stop()
