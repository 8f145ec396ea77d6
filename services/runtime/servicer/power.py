"""The gRPC face of the host's power: convert, call, convert."""

from __future__ import annotations

from typing import Any

from protos.podium.runtime.v1 import power_pb2 as pb
from protos.podium.runtime.v1 import power_pb2_grpc as rpc
from services.runtime.usecases.running.shutdown import HostShutdown


class HostPowerServicer(rpc.HostPowerServiceServicer):
    def __init__(self, shutdown: HostShutdown) -> None:
        self._shutdown = shutdown

    async def StopInstances(self, request: pb.StopInstancesRequest, context: Any) -> pb.StopInstancesResponse:
        return pb.StopInstancesResponse(failed=await self._shutdown.run())
