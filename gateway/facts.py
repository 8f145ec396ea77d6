"""What GET /1.0 tells of this server, kept ready: no other service is asked when a client does."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import grpc

from core.errors import PodiumError
from core.records import ServerConfig
from core.settings import Settings
from core.state import keys
from core.state.cache import Cache
from core.state.repository import Entry
from core.state.store import Store
from core.tasks import cancelled
from protos.podium.runtime.v1 import instance_pb2 as pb

_RETRY_S = 0.5


@dataclass(frozen=True, eq=False)
class Facts:
    """One state of what is told; a new object whenever something changed. config: with secrets hashed."""

    member: str
    https_address: str
    certificate: str
    fingerprint: str
    config: Mapping[str, str]
    runtime: pb.GetRuntimeInfoResponse
    clustered: bool = False

    @property
    def metrics_are_public(self) -> bool:
        return self.config.get("core.metrics_authentication", "true").lower() in ("false", "0", "no", "off")


class FactsFollower:
    """Follows the server's configuration, and reads the runtime's facts when it comes (back)."""

    def __init__(self, settings: Settings, store: Store, runtime_line: Any, runtime: Any) -> None:
        self._config: Cache[ServerConfig] = Cache(store, ServerConfig, keys.server_config())
        self._line = runtime_line
        self._runtime = runtime
        self._task: asyncio.Task[None] | None = None
        pem = (settings.state_dir / "tls" / "server.crt").read_text()
        self.now = Facts(
            member=settings.member,
            https_address=settings.url_address,
            clustered=settings.cluster is not None,
            certificate=pem,
            fingerprint=hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest(),
            config={},
            runtime=pb.GetRuntimeInfoResponse(engine="lxc"),
        )

    async def start(self) -> None:
        self._config.on_change(self._take_config)
        await self._config.start()
        # Owned by this object until stop().
        self._task = asyncio.create_task(self._follow_runtime(), name="runtime facts")

    async def stop(self) -> None:
        await self._config.stop()
        await cancelled(self._task)

    async def caught_up(self, revision: int) -> None:
        """Return when a change of the configuration is in, so that its author reads what it wrote."""
        await self._config.catch_up(revision)

    def _take_config(self, key: str, entry: Entry[ServerConfig] | None) -> None:
        self.now = replace(self.now, config=entry.record.config if entry else {})

    async def _follow_runtime(self) -> None:
        while True:
            state = self._line.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                await self._read_runtime()
            await self._line.wait_for_state_change(state)

    async def _read_runtime(self) -> None:
        while True:
            try:
                found = await self._runtime.GetRuntimeInfo(pb.GetRuntimeInfoRequest())
                self.now = replace(self.now, runtime=found)
                return
            except PodiumError:
                await asyncio.sleep(_RETRY_S)
