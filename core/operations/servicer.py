"""The OperationService that every service registers for the operations it accepted."""

from __future__ import annotations

from typing import Any

from core.errors import NotFound
from core.operations.convert import to_proto
from core.operations.operation import Operation
from core.operations.runner import Runner
from core.rpc.identity import current_identity
from protos.podium.common.v1 import common_pb2 as pb
from protos.podium.common.v1 import common_pb2_grpc as rpc

NAME = "podium.common.v1.OperationService"


def answer(runner: Runner, operation: Operation) -> pb.Operation:
    """Return *operation* as a message, with the revision of its last write."""
    return to_proto(operation, revision=runner.revisions.get(operation.id, 0))


class OperationServicer(rpc.OperationServiceServicer):
    """Get and cancel."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def GetOperation(self, request: pb.GetOperationRequest, context: Any) -> pb.GetOperationResponse:
        return pb.GetOperationResponse(operation=answer(self._runner, self._own(request.id)))

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, context: Any
    ) -> pb.CancelOperationResponse:
        operation = await self._runner.cancel(self._own(request.id).id)
        return pb.CancelOperationResponse(operation=answer(self._runner, operation))

    def _own(self, id: str) -> Operation:
        """Return an operation that is the caller's business. Raises: NotFound."""
        operation, caller = self._runner.get(id), current_identity()
        is_own = operation.requestor.get("username") == caller.username
        if caller.projects is None or operation.project in caller.projects or is_own:
            return operation
        raise NotFound("NO_OPERATION", "Operation not found", about=id)
