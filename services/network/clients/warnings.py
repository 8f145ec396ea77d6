"""The cluster service's warnings, as the use cases want them."""

from __future__ import annotations

from typing import Any

from core.rpc.client import channel
from core.settings import Settings
from protos.podium.cluster.v1 import warning_pb2 as pb
from protos.podium.cluster.v1 import warning_pb2_grpc as rpc
from services.network.domain.conflicts import TYPES, Conflict


class WarningClient:
    """Implements ports.Warnings."""

    def __init__(self, settings: Settings) -> None:
        self._member = settings.member
        self._channel = channel(settings, "cluster")
        self._stub: Any = rpc.WarningServiceStub(self._channel)

    async def active(self) -> dict[tuple[str, str], str]:
        answer = await self._stub.ListWarnings(pb.ListWarningsRequest())
        return {
            (w.type, w.subject): w.id
            for w in answer.warnings
            if w.member == self._member and w.type in TYPES and w.status != "resolved"
        }

    async def raise_warning(self, conflict: Conflict) -> str:
        warning = pb.Warning(
            type=conflict.type,
            severity=conflict.severity,
            member=self._member,
            subject=conflict.subject,
            message=conflict.message,
        )
        answer = await self._stub.RaiseWarning(pb.RaiseWarningRequest(warning=warning))
        return str(answer.warning.id)

    async def resolve(self, id: str) -> None:
        await self._stub.ResolveWarning(pb.ResolveWarningRequest(id=id))

    async def close(self) -> None:
        await self._channel.close()
