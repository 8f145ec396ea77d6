"""The ForwardService: proxy devices in NAT mode."""

from __future__ import annotations

from typing import Any

from protos.podium.network.v1 import forward_pb2 as pb
from protos.podium.network.v1 import forward_pb2_grpc as rpc
from services.network.domain.forwards import checked
from services.network.usecases.forwards import Forwarding


class ForwardServicer(rpc.ForwardServiceServicer):
    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding

    async def SetForwards(self, request: pb.SetForwardsRequest, context: Any) -> pb.SetForwardsResponse:
        wanted = [
            checked(f.protocol, f.listen_address, f.listen_ports, f.connect_address, f.connect_ports)
            for f in request.forwards
        ]
        await self._forwarding.set(request.instance_id, wanted)
        return pb.SetForwardsResponse()
