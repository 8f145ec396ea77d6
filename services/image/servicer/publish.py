"""The gRPC face of publishing: convert, call, convert."""

from __future__ import annotations

from typing import Any

from core.operations.runner import Runner
from core.operations.servicer import answer
from protos.podium.image.v1 import publish_pb2 as pb
from protos.podium.image.v1 import publish_pb2_grpc as rpc
from services.image.usecases.publish import Publish, Wanted


class PublishServicer(rpc.PublishServiceServicer):
    def __init__(self, publish: Publish, runner: Runner) -> None:
        self._publish = publish
        self._runner = runner

    async def PublishInstance(
        self, request: pb.PublishInstanceRequest, context: Any
    ) -> pb.PublishInstanceResponse:
        wanted = Wanted(
            project=request.project,
            instance_project=request.instance.project,
            instance=request.instance.name,
            snapshot=request.instance.snapshot,
            public=request.public,
            properties=dict(request.properties.values) if request.HasField("properties") else None,
            aliases=[alias.name for alias in request.aliases],
            compression=request.compression,
            expires_at=request.expires_at.ToNanoseconds() / 1e9,
        )
        operation = await self._publish.accept(wanted)
        return pb.PublishInstanceResponse(operation=answer(self._runner, operation))
