"""The gRPC face of copies, moves and rebuilds: convert, call, convert."""

from __future__ import annotations

from typing import Any

from core.configkeys.devices.registry import without_empty
from core.operations.operation import Operation
from core.operations.servicer import answer
from protos.podium.common.v1 import common_pb2
from protos.podium.runtime.v1 import copy_pb2 as pb
from protos.podium.runtime.v1 import copy_pb2_grpc as rpc
from services.runtime.servicer.instances import source_of
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.instances.copy import Copies, Origin, WantedCopy
from services.runtime.usecases.instances.move import Destination, Moves
from services.runtime.usecases.instances.rebuild import Rebuild
from services.runtime.usecases.instances.refresh import Refresh


class CopyServicer(rpc.CopyServiceServicer):
    def __init__(
        self, claims: Claims, copies: Copies, refresh: Refresh, moves: Moves, rebuild: Rebuild
    ) -> None:
        self._runner = claims.runner
        self._copies = copies
        self._refresh = refresh
        self._moves = moves
        self._rebuild = rebuild

    def _answer(self, operation: Operation) -> common_pb2.Operation:
        return answer(self._runner, operation)

    async def CopyInstance(self, request: pb.CopyInstanceRequest, context: Any) -> pb.CopyInstanceResponse:
        origin = Origin(request.source.project, request.source.name, request.source.snapshot)
        if request.refresh and self._refresh.is_possible(request.project, request.name):
            operation = await self._refresh.accept(
                request.project, request.name, origin, instance_only=request.instance_only
            )
        else:
            operation = await self._copies.accept(_wanted(request, origin))
        return pb.CopyInstanceResponse(operation=self._answer(operation))

    async def MoveInstance(self, request: pb.MoveInstanceRequest, context: Any) -> pb.MoveInstanceResponse:
        to = Destination(request.new_name, request.to.project, request.pool, request.instance_only)
        operation = await self._moves.accept(request.project, request.name, to)
        return pb.MoveInstanceResponse(operation=self._answer(operation))

    async def RebuildInstance(
        self, request: pb.RebuildInstanceRequest, context: Any
    ) -> pb.RebuildInstanceResponse:
        source = source_of(request.source)
        operation = await self._rebuild.accept(request.project, request.name, source)
        return pb.RebuildInstanceResponse(operation=self._answer(operation))


def _wanted(request: pb.CopyInstanceRequest, origin: Origin) -> WantedCopy:
    return WantedCopy(
        project=request.project,
        name=request.name,
        source=origin,
        description=request.description,
        ephemeral=request.ephemeral,
        profiles=tuple(request.profiles.names) if request.HasField("profiles") else None,
        config=dict(request.config),
        devices=without_empty({name: device.options for name, device in request.devices.items()}),
        instance_only=request.instance_only,
        start=request.start,
    )
