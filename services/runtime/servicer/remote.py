"""The gRPC face of instances whose image is elsewhere."""

from __future__ import annotations

from typing import Any

from core.operations.runner import Runner
from core.operations.servicer import answer
from core.rpc.identity import current_identity
from protos.podium.runtime.v1 import remote_pb2 as pb
from protos.podium.runtime.v1 import remote_pb2_grpc as rpc
from services.runtime.servicer.instances import wanted_of
from services.runtime.usecases.instances.remote import RemoteCreate
from services.runtime.usecases.peers import RemoteImage


class RemoteCreateServicer(rpc.RemoteCreateServiceServicer):
    def __init__(self, create: RemoteCreate, runner: Runner) -> None:
        self._create = create
        self._runner = runner

    async def CreateFromRemote(
        self, request: pb.CreateFromRemoteRequest, context: Any
    ) -> pb.CreateFromRemoteResponse:
        image = RemoteImage(
            protocol=request.image.protocol,
            server=request.image.server,
            alias=request.image.alias,
            fingerprint=request.image.fingerprint,
            certificate=request.image.certificate,
            secret=request.image.secret,
            remote_project=request.image.remote_project,
            outside_only=request.image.outside_only or current_identity().projects is not None,
        )
        operation = await self._create.accept(wanted_of(request.instance), image)
        return pb.CreateFromRemoteResponse(operation=answer(self._runner, operation))
