"""Uploads through the real gateway, byte by byte: broken requests get a sentence, nothing stays behind."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from core.records import Project
from core.settings import Settings
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from gateway.backend import Backend
from gateway.lxd.handlers import images
from gateway.protocol import Runner
from gateway.web import application
from tests.integration.image.harness import YAML, Service, image_service, tarball, unified

GOOD = gzip.compress(unified())


@dataclass
class Door:
    """The gateway's socket, and the image service behind it."""

    socket: Path
    images: Service

    async def send(self, request: bytes, *, then_leave: bool = False) -> tuple[int, dict[str, Any]]:
        """Send raw bytes; return status and body of the answer."""
        reader, writer = await asyncio.open_unix_connection(self.socket, limit=1 << 24)
        try:
            writer.write(request)
            if then_leave:
                await writer.drain()
                return 0, {}
            async with asyncio.timeout(10):
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return int(head.split()[1]), json.loads(body)
        finally:
            writer.close()

    async def upload(self, body: bytes, *headers: str, length: int = -1) -> tuple[int, dict[str, Any]]:
        return await self.send(posted(body, *headers, length=length))

    async def result(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the final operation that an answer began."""
        wait = f"GET {answer['operation']}/wait?timeout=10 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        return dict((await self.send(wait.encode()))[1]["metadata"])

    async def is_clean(self) -> None:
        """Return when staging is empty. Raises: TimeoutError."""
        async with asyncio.timeout(5):
            while any((self.images.root / "staging").iterdir()):
                await asyncio.sleep(0.02)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    memory = MemoryStore()
    await memory.commit(Txn().put(keys.project("default"), Project("default")))
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "server.crt").write_text(ssl.DER_cert_to_PEM_cert(b"shown, not used here"))
    async with image_service(tmp_path, memory) as service:
        backend = Backend(Settings.from_env({"PODIUM_DIR": str(tmp_path)}), memory)
        await backend.start()
        runner = Runner(application(backend))
        await runner.setup()
        await web.UnixSite(runner, str(tmp_path / "door")).start()
        yield Door(tmp_path / "door", service)
        await runner.cleanup()
        await backend.stop()


def posted(body: bytes, *headers: str, length: int = -1) -> bytes:
    lines = ["POST /1.0/images HTTP/1.1", "Host: x", "Connection: close", *headers]
    if not any(h.startswith("Transfer-Encoding") for h in headers):
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


FORM = "Content-Type: multipart/form-data; boundary=BB"
CHUNKED = "Transfer-Encoding: chunked"


def part(name: str, data: bytes, *headers: str) -> bytes:
    lines = ["--BB", f'Content-Disposition: form-data; name="{name}"; filename="f"', *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data + b"\r\n"


END = b"--BB--\r\n"
META, ROOT = gzip.compress(tarball({"metadata.yaml": YAML})), gzip.compress(tarball({"etc/x": b"x"}))
FIRST, SECOND = part("metadata", META), part("rootfs", ROOT)

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (posted(b""), "neither"),
    "nothing in chunks": (posted(b"0\r\n\r\n", CHUNKED), "neither"),
    "half a JSON object": (posted(b'{"source":'), "not JSON"),
    "a property with NUL": (posted(GOOD, "X-LXD-properties: a=%00"), "NUL"),
    "a file name that is no text": (posted(GOOD, "X-LXD-filename: a\udcff"), "UTF-8"),
    "a form without boundary": (posted(b"abc", "Content-Type: multipart/form-data"), "multipart"),
    "a form with a long boundary": (
        posted(b"abc", f"Content-Type: multipart/form-data; boundary={'b' * 100}"),
        "multipart",
    ),
    "an empty form": (posted(b"", FORM), "multipart"),
    "a form of garbage": (posted(b"garbage" * 99, FORM), "multipart"),
    "a form without parts": (posted(END, FORM), "neither"),
    "one part": (posted(FIRST + END, FORM), "neither"),
    "an unknown part": (posted(part("evil", b"x") + END, FORM), "once each"),
    "parts in the wrong order": (
        posted(part("rootfs", ROOT) + part("metadata", META) + END, FORM),
        "neither",
    ),
    "a part twice": (posted(FIRST + SECOND * 2 + END, FORM), "once each"),
    "a form cut off": (posted((FIRST + SECOND)[:-20], FORM), "multipart"),
    "a form in a form": (
        posted(part("metadata", b"", "Content-Type: multipart/mixed; boundary=CC") + END, FORM),
        "once each",
    ),
    "a part without name": (posted(b"--BB\r\n\r\nx\r\n" + END, FORM), "once each"),
    "a part header of 1 MB": (
        posted(part("metadata", b"", "X: " + "a" * 999_999) + END, FORM),
        "multipart",
    ),
    "100,000 part headers": (posted(part("metadata", b"", *["X: a"] * 100_000) + END, FORM), "multipart"),
    "a part header without colon": (posted(part("metadata", b"x", "hello") + END, FORM), "multipart"),
    "a part name with NUL": (posted(part("meta\0data", b"x") + END, FORM), "multipart"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_broken_upload_is_answered_400_with_a_sentence(door: Door, name: str) -> None:
    request, why = REFUSED[name]
    status, answer = await door.send(request)
    assert (status, why in answer["error"]) == (400, True), answer
    await door.is_clean()


@pytest.mark.parametrize("length", ["-1", "abc", "5, 6"])
async def test_a_length_that_is_none_is_answered_400(door: Door, length: str) -> None:
    head = f"POST /1.0/images HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    reader, writer = await asyncio.open_unix_connection(door.socket)
    writer.write(head + GOOD)
    assert b" 400 " in await reader.readline()
    writer.close()


LEAVING = {
    "in the middle of a body": posted(GOOD, length=len(GOOD) + 100),
    "after one chunk": posted(b"100\r\n" + bytes(256) + b"\r\n", CHUNKED),
    "in the middle of a part": posted(part("metadata", META)[:-30], FORM, length=5000),
    "before any byte": posted(b"", length=100),
}


@pytest.mark.parametrize("where", LEAVING)
async def test_a_sender_that_leaves_leaves_nothing(door: Door, where: str) -> None:
    await door.send(LEAVING[where], then_leave=True)
    await asyncio.sleep(0.1)
    await door.is_clean()
    assert door.images.files() == set()


@pytest.mark.parametrize("next_bytes", [b"", b"ZZ\r\nx"])
async def test_an_upload_that_stops_is_given_up(
    door: Door, monkeypatch: pytest.MonkeyPatch, next_bytes: bytes
) -> None:
    """Whether nothing more comes or nothing that makes sense: the sender is told, and nothing stays."""
    monkeypatch.setattr(images, "_STALL_S", 0.3)
    reader, writer = await asyncio.open_unix_connection(door.socket)
    writer.write(posted(b"100\r\n" + bytes(256) + b"\r\n", CHUNKED))
    await asyncio.sleep(0.1)
    writer.write(next_bytes)
    async with asyncio.timeout(10):
        assert b" 400 " in await reader.readline()
        assert b"No byte of the upload came" in await reader.readuntil(b"}\n")
    writer.close()
    await door.is_clean()
    assert door.images.files() == set()


HEADERS = {
    "a content encoding": ("Content-Encoding: gzip",),
    "an odd file name": ("X-LXD-filename: ../../é",),
    "properties": ("X-LXD-properties: os=x&release=a%26b", "X-LXD-properties: %zz=c&&&="),
    "odd flags": ("X-LXD-public: maybe",),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_headers_do_not_change_the_bytes(door: Door, name: str) -> None:
    """The fingerprint is that of what was sent, and that is what comes back."""
    status, answer = await door.upload(GOOD, *HEADERS[name])
    assert status == 202, answer
    done = await door.result(answer)
    assert (done["status"], done["err"]) == ("Success", "")
    fingerprint = hashlib.sha256(GOOD).hexdigest()
    assert done["metadata"] == {"fingerprint": fingerprint, "size": str(len(GOOD))}
    assert await door.images.export(fingerprint) == [(f"{fingerprint}.tar.gz", GOOD)]
    assert not (await door.images.get(fingerprint)).public


async def test_a_form_of_two_parts_becomes_a_split_image(door: Door) -> None:
    body = part("metadata", META) + part("rootfs", ROOT, "Content-Transfer-Encoding: base64") + END
    _, answer = await door.upload(body, FORM)
    done = await door.result(answer)
    assert done["metadata"]["fingerprint"] == hashlib.sha256(META + ROOT).hexdigest(), done


@pytest.mark.parametrize("expected", ["0" * 64, "../../etc/passwd", "x" * 5000])
async def test_another_fingerprint_than_announced_is_never_seen(door: Door, expected: str) -> None:
    _, answer = await door.upload(GOOD, f"X-LXD-fingerprint: {expected}")
    done = await door.result(answer)
    assert (done["status"], "fingerprints don't match" in done["err"]) == ("Failure", True)
    assert door.images.files() == set()
    await door.is_clean()


@pytest.mark.parametrize("name", ["nosuch", "no/such", "deb%3Fian", "x" * 10_000, "%F0%9F%90%8D", "A" * 64])
async def test_an_unknown_image_is_answered_404_and_named(door: Door, name: str) -> None:
    """Clients try every alias they do not find as a fingerprint; the answer must not be about hex."""
    path = f"/1.0/images/{name.replace('/', '%2F')}"
    status, answer = await door.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert (status, answer["error"].startswith("Image not found")) == (404, True), answer
    assert name[:6] in answer["error"] or "%" in name or "/" in name
