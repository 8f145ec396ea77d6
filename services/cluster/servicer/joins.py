"""The gRPC face of joining, and of choosing members."""

from __future__ import annotations

from typing import Any

from core.operations.runner import Runner
from core.operations.servicer import answer
from protos.podium.cluster.v1 import join_pb2 as pb
from protos.podium.cluster.v1 import join_pb2_grpc as rpc
from services.cluster.usecases.joins import Joins
from services.cluster.usecases.placement import Placement


class JoinServicer(rpc.JoinServiceServicer):
    def __init__(self, joins: Joins, runner: Runner) -> None:
        self._joins = joins
        self._runner = runner

    async def CreateJoinToken(
        self, request: pb.CreateJoinTokenRequest, context: Any
    ) -> pb.CreateJoinTokenResponse:
        operation = await self._joins.create_token(request.name, list(request.addresses))
        return pb.CreateJoinTokenResponse(operation=answer(self._runner, operation))

    async def AcceptMember(self, request: pb.AcceptMemberRequest, context: Any) -> pb.AcceptMemberResponse:
        admission = await self._joins.accept(
            request.secret, request.name, request.certificate_request, request.rpc_address
        )
        return pb.AcceptMemberResponse(
            ca=admission.granted.ca,
            certificate=admission.granted.member,
            etcd_ca=admission.granted.etcd_ca,
            etcd_certificate=admission.granted.etcd,
            runs_etcd=admission.runs_etcd,
            first_peers=admission.first_peers,
            endpoints=admission.endpoints,
        )


class PlacementServicer(rpc.PlacementServiceServicer):
    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    async def PlaceInstance(self, request: pb.PlaceInstanceRequest, context: Any) -> pb.PlaceInstanceResponse:
        return pb.PlaceInstanceResponse(member=self._placement.choose(request.target))
