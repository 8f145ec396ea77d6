"""The gRPC face of warnings: convert, call, convert."""

from __future__ import annotations

from typing import Any

from core.records import Warning
from core.state.repository import Entry
from protos.podium.cluster.v1 import warning_pb2 as pb
from protos.podium.cluster.v1 import warning_pb2_grpc as rpc
from services.cluster.usecases.warnings import Warnings


class WarningServicer(rpc.WarningServiceServicer):
    def __init__(self, warnings: Warnings) -> None:
        self._warnings = warnings

    async def RaiseWarning(self, request: pb.RaiseWarningRequest, context: Any) -> pb.RaiseWarningResponse:
        w = request.warning
        seen = Warning(
            type=w.type,
            severity=w.severity,
            member=w.member,
            project=w.project,
            subject=w.subject,
            message=w.message,
        )
        return pb.RaiseWarningResponse(warning=_shown(await self._warnings.raise_warning(seen)))

    async def ResolveWarning(
        self, request: pb.ResolveWarningRequest, context: Any
    ) -> pb.ResolveWarningResponse:
        await self._warnings.resolve(request.id)
        return pb.ResolveWarningResponse()

    async def GetWarning(self, request: pb.GetWarningRequest, context: Any) -> pb.GetWarningResponse:
        return pb.GetWarningResponse(warning=_shown(self._warnings.get(request.id)))

    async def ListWarnings(self, request: pb.ListWarningsRequest, context: Any) -> pb.ListWarningsResponse:
        return pb.ListWarningsResponse(warnings=[_shown(e) for e in self._warnings.all(request.project)])

    async def AcknowledgeWarning(
        self, request: pb.AcknowledgeWarningRequest, context: Any
    ) -> pb.AcknowledgeWarningResponse:
        entry = await self._warnings.acknowledge(request.id, request.status)
        return pb.AcknowledgeWarningResponse(warning=_shown(entry))

    async def DeleteWarning(self, request: pb.DeleteWarningRequest, context: Any) -> pb.DeleteWarningResponse:
        await self._warnings.delete(request.id)
        return pb.DeleteWarningResponse()


def _shown(entry: Entry[Warning]) -> pb.Warning:
    r = entry.record
    message = pb.Warning(
        id=r.id,
        type=r.type,
        severity=r.severity,
        status=r.status,
        member=r.member,
        project=r.project,
        subject=r.subject,
        message=r.message,
        count=r.count,
        revision=entry.revision,
    )
    message.first_seen_at.FromNanoseconds(int(r.first_seen_at * 1e9))
    message.last_seen_at.FromNanoseconds(int(r.last_seen_at * 1e9))
    return message
