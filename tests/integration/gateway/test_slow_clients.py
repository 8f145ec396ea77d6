"""Clients that begin and do not go on are given up, or anybody could hold all descriptors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from core.records import Project
from core.settings import Settings
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from gateway import protocol
from gateway.backend import Backend
from gateway.lxd import request as req
from gateway.protocol import Runner
from gateway.tls import server_context
from gateway.web import application
from tests.integration.gateway.test_confined_over_tls import _pair


@pytest.fixture
async def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    monkeypatch.setattr(req, "BODY_S", 0.2)
    monkeypatch.setattr(protocol, "FIRST_REQUEST_S", 0.2)
    (tmp_path / "tls").mkdir()
    _pair(tmp_path / "tls", "server")
    store = MemoryStore()
    await store.commit(Txn().put(keys.project("default"), Project("default")))
    backend = Backend(Settings.from_env({"PODIUM_DIR": str(tmp_path)}), store)
    await backend.start()
    runner = Runner(application(backend))
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    yield str(tmp_path / "s")
    await runner.cleanup()
    await backend.stop()


async def test_a_connection_without_a_handshake_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A thousand of them would keep everybody else out for as long as they are waited for."""
    monkeypatch.setattr(protocol, "HANDSHAKE_S", 0.2)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    context = server_context(tmp_path / "tls/server.crt", tmp_path / "tls/server.key")
    await protocol.HttpsSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    finally:
        await runner.cleanup()


async def _answer(path: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(4096), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_body_that_does_not_come_is_408(path: str) -> None:
    head = b"POST /1.0/profiles HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    found = await _answer(path, head)
    assert b" 408 " in found and b"did not come" in found


@pytest.mark.parametrize("data", [b"", b"GET /1.0 HTT"])
async def test_a_connection_without_a_request_is_closed(path: str, data: bytes) -> None:
    assert await _answer(path, data) == b""


async def test_a_quick_client_keeps_its_connection(path: str) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    for pause_s in (0.0, 0.4):
        await asyncio.sleep(pause_s)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.read(4096), 5)
    writer.close()
