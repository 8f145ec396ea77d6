"""What a hostile guest may send to the guest API, over real sockets and with a runtime that is made up."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import NotFound
from gateway.guests import server
from gateway.guests.server import GuestApi
from protos.podium.runtime.v1 import guest_pb2 as pb
from tests.unit.gateway.test_guest_doors import a_folder


class Images:
    async def GetFiles(self, request: Any) -> Any:
        raise NotFound(
            "NO_IMAGE", f"Image not found: there is no alias or fingerprint {request.fingerprint!r}"
        )


class Runtime:
    """Answers for every guest; its root is whoever runs this test."""

    def __init__(self) -> None:
        self.said: list[int] = []
        self.allowed = True
        self.root_uid = os.getuid()

    async def GetGuest(self, request: Any) -> pb.GetGuestResponse:
        config = {"user.a": "1", "cloud-init.user-data": "x"}
        return pb.GetGuestResponse(
            project="default",
            name=request.instance_id,
            root_uid=self.root_uid,
            allowed=self.allowed,
            may_export_images=True,
            config=config,
        )

    async def SetGuestState(self, request: Any) -> pb.SetGuestStateResponse:
        self.said.append(request.state)
        return pb.SetGuestStateResponse()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[tuple[Runtime, Path]]:
    runtime = Runtime()
    path = a_folder(tmp_path, "web")
    made = GuestApi(SimpleNamespace(guests=runtime, shares=Images()), tmp_path)  # type: ignore[arg-type]
    made.start()
    yield runtime, path
    await made.stop()


async def sent(path: Path, data: bytes) -> bytes:
    """Return all that is answered to *data*; the connection is closed after it."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


def get(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: lxd", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_names_in_the_request_decide_nothing(api: tuple[Runtime, Path]) -> None:
    """The socket says whose request it is, whatever Host, path or query say."""
    _, path = api
    answer = await sent(path, get("/1.0/meta-data?project=other&name=other", "X-Instance: other"))
    assert b"local-hostname: web" in answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("/1.0/config/limits.cpu", 403),
        ("/1.0/config/volatile.uuid", 403),
        ("/1.0/config/user.", 404),
        ("/1.0/config/user.a/../../config/limits.cpu", 404),
        ("/1.0/config/%2e%2e%2f", 403),
        ("/1.0/config/user.a%00", 404),
        ("/1.0/config/user." + "x" * 7000, 404),
        ("/1.0/images/../../etc/export", 404),
        ("//1.0", 200),
        ("/2.0", 404),
        ("/1.0/instances", 404),
    ],
)
async def test_a_path_is_one_of_a_few(api: tuple[Runtime, Path], request_line: str, status: int) -> None:
    """Anything else is nothing, and says nothing of why."""
    answer = await sent(api[1], get(request_line))
    assert answer.split()[1] == str(status).encode()


async def test_an_image_that_is_not_there_is_told_in_an_envelope(api: tuple[Runtime, Path]) -> None:
    """As LXD does, which answers in text elsewhere in the guest API."""
    answer = await sent(api[1], get("/1.0/images/abc/export"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"404"
    said = json.loads(body)
    assert (said["type"], said["error_code"], said["error"]) == ("error", 404, "Image not found")


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    ],
)
async def test_what_is_no_http_is_refused_without_detail(api: tuple[Runtime, Path], data: bytes) -> None:
    """And the next connection is served as before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.protocol.FIRST_REQUEST_S", 0.2)
        answer = await sent(api[1], data)
    assert not answer or answer.split()[1] in (b"400", b"404")
    assert b"Traceback" not in answer
    assert b'["/1.0"]' in await sent(api[1], get("/"))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"state": "Ready"}', 200),
        (b'{"state": "Started"}', 200),
        (b'{"state": "Stopped"}', 400),
        (b'{"state": ["Ready"]}', 400),
        (b"[" * 4000, 400),
        (b"{" + b" " * 5000 + b"}", 413),
        (b"", 400),
    ],
)
async def test_a_guest_may_say_two_things(api: tuple[Runtime, Path], body: bytes, status: int) -> None:
    """Bounded, and checked before anybody else hears of it."""
    runtime, path = api
    answer = await sent(path, get("/1.0", f"Content-Length: {len(body)}", method="PATCH", body=body))
    assert answer.split()[1] == str(status).encode()
    assert len(runtime.said) == (status == 200)


async def test_only_the_guests_root_is_answered(api: tuple[Runtime, Path]) -> None:
    """The kernel says who is at the other end."""
    runtime, path = api
    runtime.root_uid += 1
    assert b"401" in (await sent(path, get("/1.0"))).split(b"\r\n")[0]
    runtime.allowed = False
    assert b"403" in (await sent(path, get("/1.0"))).split(b"\r\n")[0]


async def test_who_asks_without_end_is_slowed_down(
    api: tuple[Runtime, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway is everybody's; a boot's questions are answered at once."""
    monkeypatch.setattr(server, "_BURST", 5.0)
    began = time.monotonic()
    for _ in range(5):
        await sent(api[1], get("/"))
    assert time.monotonic() - began < 1

    for _ in range(5):
        await sent(api[1], get("/"))

    assert time.monotonic() - began > 0.1


async def test_a_connection_that_says_nothing_is_dropped(
    api: tuple[Runtime, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else sixteen of them would keep the guest's own programs out for ever."""
    monkeypatch.setattr("gateway.protocol.FIRST_REQUEST_S", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.setblocking(False)
        silent.connect(str(api[1]))
        received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(silent, 1), 2)
    assert received == b""
