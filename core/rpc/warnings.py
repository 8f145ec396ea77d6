"""The cluster service's warnings: what a service raises when a trouble begins and resolves when it ends."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from core.rpc.client import channel
from core.settings import Settings
from protos.podium.cluster.v1 import warning_pb2 as pb
from protos.podium.cluster.v1 import warning_pb2_grpc as rpc


class Trouble(Protocol):
    """type and subject name it; message says what is wrong and what to do."""

    @property
    def type(self) -> str: ...
    @property
    def severity(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def message(self) -> str: ...


class WarningClient:
    """Warnings of *types* of this member: those that one service looks after."""

    def __init__(self, settings: Settings, types: Collection[str]) -> None:
        self._member = settings.member
        self._types = types
        self._channel = channel(settings, "cluster")
        self._stub: Any = rpc.WarningServiceStub(self._channel)

    async def active(self) -> dict[tuple[str, str], str]:
        """Return (type, subject) to id of those that are not resolved."""
        answer = await self._stub.ListWarnings(pb.ListWarningsRequest())
        return {
            (w.type, w.subject): w.id
            for w in answer.warnings
            if w.member == self._member and w.type in self._types and w.status != "resolved"
        }

    async def raise_warning(self, trouble: Trouble) -> str:
        """Return the id."""
        warning = pb.Warning(
            type=trouble.type,
            severity=trouble.severity,
            member=self._member,
            subject=trouble.subject,
            message=trouble.message,
        )
        answer = await self._stub.RaiseWarning(pb.RaiseWarningRequest(warning=warning))
        return str(answer.warning.id)

    async def resolve(self, id: str) -> None:
        await self._stub.ResolveWarning(pb.ResolveWarningRequest(id=id))

    async def close(self) -> None:
        await self._channel.close()
