"""/internal: what only the host's own programs ask for."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.lxd import envelope
from gateway.lxd import request as req
from protos.podium.cluster.v1 import cluster_pb2
from protos.podium.image.v1 import image_pb2
from protos.podium.network.v1 import network_pb2
from protos.podium.runtime.v1 import power_pb2 as pb
from protos.podium.runtime.v1 import storage_pb2

_HOME = "default"


async def ready(request: web.Request) -> web.Response:
    """Answer `lxd waitready` once every service does. Raises: Unavailable, on which it asks again."""
    backend = req.backend(request)
    await asyncio.gather(
        backend.server.GetServer(cluster_pb2.GetServerRequest()),
        backend.storage.ListPools(storage_pb2.ListPoolsRequest()),
        backend.networks.ListNetworks(network_pb2.ListNetworksRequest(project=_HOME)),
        backend.images.ListAliases(image_pb2.ListAliasesRequest(project=_HOME)),
    )
    return envelope.empty()


async def shutdown(request: web.Request) -> web.Response:
    """Stop all instances, as they are stopped when the host goes down; answer when none runs."""
    done = await req.backend(request).host_power.StopInstances(pb.StopInstancesRequest(), timeout=None)
    return envelope.sync({"failed": list(done.failed)})
