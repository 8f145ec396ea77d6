"""The gRPC face of recovery: convert, call, convert."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from protos.podium.runtime.v1 import recover_pb2 as pb
from protos.podium.runtime.v1 import recover_pb2_grpc as rpc
from services.runtime.usecases.pools.recover import Found, Recover, WantedPool


class RecoverServicer(rpc.RecoverServiceServicer):
    def __init__(self, recover: Recover) -> None:
        self._recover = recover

    async def ValidateRecover(
        self, request: pb.ValidateRecoverRequest, context: Any
    ) -> pb.ValidateRecoverResponse:
        report = await self._recover.validate(_wanted(request.pools))
        return pb.ValidateRecoverResponse(
            volumes=_volumes(report.found), problems=report.problems, pools=[p.name for p in report.pools]
        )

    async def ImportRecover(self, request: pb.ImportRecoverRequest, context: Any) -> pb.ImportRecoverResponse:
        report = await self._recover.restore(_wanted(request.pools))
        return pb.ImportRecoverResponse(volumes=_volumes(report.found), pools=[p.name for p in report.pools])


def _wanted(pools: Iterable[pb.RecoverPool]) -> list[WantedPool]:
    return [WantedPool(p.name, p.driver, p.description, dict(p.config)) for p in pools]


def _volumes(found: Iterable[Found]) -> list[pb.RecoverVolume]:
    return [
        pb.RecoverVolume(name=f.name, type=f.kind, snapshots=f.snapshots, project=f.project, pool=f.pool.name)
        for f in found
    ]
