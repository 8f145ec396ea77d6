"""Networks. They are shared by all projects."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.nouns import Noun
from gateway.lxd.views.others import leases_json, network_json, network_state_json
from protos.podium.network.v1 import network_pb2 as pb

_HOME = "default"


async def _get(request: web.Request) -> Any:
    reply = await req.backend(request).networks.GetNetwork(
        pb.GetNetworkRequest(project=_HOME, name=req.name(request))
    )
    return reply.network


def _writable(n: Any) -> tuple[Any, ...]:
    return n.name, n.managed, n.type, n.description, dict(n.config)


_NETWORK = Noun("/1.0/networks", _get, network_json, _writable, of_project=True)
get_network = _NETWORK.one


async def list_networks(request: web.Request) -> web.Response:
    reply = await req.backend(request).networks.ListNetworks(pb.ListNetworksRequest(project=_HOME))
    return _NETWORK.listing(request, reply.networks)


async def post_network(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = pb.CreateNetworkRequest(
        project=_HOME,
        name=req.text(data, "name"),
        type=req.text(data, "type"),
        config=req.text_map(data, "config"),
        description=req.text(data, "description"),
    )
    await req.backend(request).networks.CreateNetwork(message)
    return _NETWORK.created(message.name)


async def put_network(request: web.Request) -> web.Response:
    data, network = await _NETWORK.change(request)
    await req.backend(request).networks.UpdateNetwork(
        pb.UpdateNetworkRequest(
            project=_HOME,
            name=network.name,
            config=req.text_map(data, "config"),
            description=req.text(data, "description"),
            merge=request.method == "PATCH",
            expected_revision=network.revision,
        )
    )
    return envelope.empty()


async def rename_network(request: web.Request) -> web.Response:
    new_name = req.text(await req.body(request), "name")
    await req.backend(request).networks.RenameNetwork(
        pb.RenameNetworkRequest(project=_HOME, name=req.name(request), new_name=new_name)
    )
    return _NETWORK.created(new_name)


async def delete_network(request: web.Request) -> web.Response:
    await req.backend(request).networks.DeleteNetwork(
        pb.DeleteNetworkRequest(project=_HOME, name=req.name(request))
    )
    return envelope.empty()


async def network_state(request: web.Request) -> web.Response:
    reply = await req.backend(request).networks.GetNetworkState(
        pb.GetNetworkStateRequest(project=_HOME, name=req.name(request))
    )
    return envelope.sync(network_state_json(reply.state))


async def network_leases(request: web.Request) -> web.Response:
    reply = await req.backend(request).networks.ListLeases(
        pb.ListLeasesRequest(project=_HOME, name=req.name(request))
    )
    return envelope.sync(leases_json(reply.leases))


async def none_of_project(request: web.Request) -> web.Response:
    """ACLs and zones: none can be made yet."""
    return envelope.sync([])


async def none_of_network(request: web.Request) -> web.Response:
    """Forwards and peers: none can be made yet; the network must exist."""
    await _get(request)
    return envelope.sync([])
