"""What `lxd recover` asks: which volumes are not recorded, and that they be."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Invalid
from gateway.lxd import envelope
from gateway.lxd import request as req
from protos.podium.runtime.v1 import recover_pb2 as pb


def _pools(data: dict[str, Any]) -> list[pb.RecoverPool]:
    found = data.get("pools")
    found = [] if found is None else found
    if not isinstance(found, list) or not all(isinstance(pool, dict) for pool in found):
        raise Invalid("BAD_TYPE", "pools must be a list of objects", about="pools")
    return [
        pb.RecoverPool(
            name=req.text(pool, "name"),
            driver=req.text(pool, "driver"),
            config=req.text_map(pool, "config"),
            description=req.text(pool, "description"),
        )
        for pool in found
    ]


def _volume(v: Any) -> dict[str, Any]:
    return {
        "name": v.name,
        "type": v.type,
        "snapshotCount": v.snapshots,
        "project": v.project,
        "pool": v.pool,
    }


async def validate(request: web.Request) -> web.Response:
    reply = await req.backend(request).recover.ValidateRecover(
        pb.ValidateRecoverRequest(pools=_pools(await req.body(request)))
    )
    return envelope.sync(
        {
            "UnknownVolumes": [_volume(v) for v in reply.volumes],
            "DependencyErrors": list(reply.problems) or None,
            "UnknownPools": list(reply.pools),
        }
    )


async def restore(request: web.Request) -> web.Response:
    reply = await req.backend(request).recover.ImportRecover(
        pb.ImportRecoverRequest(pools=_pools(await req.body(request)))
    )
    return envelope.sync({"Volumes": [_volume(v) for v in reply.volumes], "Pools": list(reply.pools)})
