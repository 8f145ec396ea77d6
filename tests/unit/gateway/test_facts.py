"""What GET /1.0 tells is kept ready and follows changes."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import grpc

from core.errors import Unavailable
from core.records import ServerConfig
from core.settings import Settings
from core.state import keys
from core.state.memory import MemoryStore
from core.state.store import Txn
from gateway.facts import FactsFollower
from gateway.lxd.views.server import config_json
from protos.podium.runtime.v1 import instance_pb2 as pb


class FakeLine:
    """A channel whose state the test sets."""

    def __init__(self) -> None:
        self._state = grpc.ChannelConnectivity.CONNECTING
        self._changed = asyncio.Condition()

    async def become(self, state: grpc.ChannelConnectivity) -> None:
        async with self._changed:
            self._state = state
            self._changed.notify_all()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._state

    async def wait_for_state_change(self, last: grpc.ChannelConnectivity) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._state is not last)


class FakeRuntime:
    version = "5.0"
    is_away = False

    async def GetRuntimeInfo(self, request: Any) -> pb.GetRuntimeInfoResponse:
        if self.is_away:
            raise Unavailable("AWAY", "away")
        return pb.GetRuntimeInfoResponse(engine="lxc", engine_version=self.version)


def _settings(folder: Path) -> Settings:
    (folder / "tls").mkdir()
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout /dev/null"
    )
    subprocess.run(
        [*command.split(), "-out", str(folder / "tls/server.crt")], check=True, capture_output=True
    )
    return Settings.from_env({"PODIUM_DIR": str(folder), "PODIUM_HTTPS": ":8443"})


async def test_facts_are_read_again_when_the_runtime_came_back(tmp_path: Path) -> None:
    """An upgraded runtime is told of without a restart of the gateway."""
    line, runtime = FakeLine(), FakeRuntime()
    facts = FactsFollower(_settings(tmp_path), MemoryStore(), line, runtime)
    await facts.start()
    try:
        await line.become(grpc.ChannelConnectivity.READY)
        await _until(lambda: facts.now.runtime.engine_version == "5.0")
        runtime.version = "6.0"
        await line.become(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
        await asyncio.sleep(0)
        assert facts.now.runtime.engine_version == "5.0"
        await line.become(grpc.ChannelConnectivity.READY)
        await _until(lambda: facts.now.runtime.engine_version == "6.0")
    finally:
        await facts.stop()


async def test_a_changed_configuration_is_read_by_its_author(tmp_path: Path) -> None:
    """Secrets are told as set, never as they are."""
    store = MemoryStore()
    facts = FactsFollower(_settings(tmp_path), store, FakeLine(), FakeRuntime())
    await facts.start()
    try:
        config = {"core.trust_password": "hash", "user.a": "1"}
        await facts.caught_up(await store.commit(Txn().put(keys.server_config(), ServerConfig(config))))
        shown = config_json(facts.now.config, facts.now.https_address)
        assert shown == {"core.https_address": ":8443", "core.trust_password": True, "user.a": "1"}
    finally:
        await facts.stop()


async def _until(holds: Any) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0)
