"""Networks. All lie in the default project; what a project sees of them its configuration says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from core.errors import Invalid, NotFound
from core.policy import restrictions
from core.projects import DEFAULT
from core.units import parse_bool
from gateway.hardware import links
from gateway.hardware.files import Host
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.nouns import Noun
from gateway.lxd.views.networks import allocation_json
from gateway.lxd.views.others import leases_json, network_json, network_state_json
from protos.podium.network.v1 import network_pb2 as pb

_HOME = "default"


def _sees(request: web.Request, name: str, *, is_managed: bool) -> bool:
    """Return whether the project of a request has to do with a network."""
    project = req.backend(request).project_record(req.project(request))
    if project.name != DEFAULT and parse_bool(project.config.get("features.networks", "false")):
        return False
    return restrictions.may_use_network(project.config, name, is_managed=is_managed)


def visible(request: web.Request) -> str:
    """Return the name of a managed network. Raises: NotFound when the project does not see it."""
    name = req.name(request)
    if not _sees(request, name, is_managed=True):
        raise NotFound("NO_NETWORK", "Network not found", about=name)
    return name


async def _get(request: web.Request) -> Any:
    reply = await req.backend(request).networks.GetNetwork(
        pb.GetNetworkRequest(project=_HOME, name=req.name(request))
    )
    if not _sees(request, reply.network.name, is_managed=reply.network.managed):
        raise NotFound("NO_NETWORK", "Network not found", about=reply.network.name)
    return reply.network


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Say that a network is not there as LXD does where it is changed, or something below it is asked for."""
    try:
        yield
    except NotFound as exc:
        if exc.reason != "NO_NETWORK" or exc.message.startswith("Failed"):
            raise
        raise NotFound(exc.reason, f"Failed loading network: {exc.message}", about=exc.about) from None


def _writable(n: Any) -> tuple[Any, ...]:
    return n.name, n.managed, n.type, n.description, dict(n.config)


_NETWORK = Noun("/1.0/networks", _get, network_json, _writable, of_project=True)
get_network = _NETWORK.one


async def list_networks(request: web.Request) -> web.Response:
    reply = await req.backend(request).networks.ListNetworks(pb.ListNetworksRequest(project=_HOME))
    seen = [n for n in reply.networks if _sees(request, n.name, is_managed=n.managed)]
    return _NETWORK.listing(request, seen)


async def post_network(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = pb.CreateNetworkRequest(
        project=_HOME,
        name=req.text(data, "name"),
        type=req.text(data, "type"),
        config=req.text_map(data, "config"),
        description=req.text(data, "description"),
    )
    project = req.backend(request).project_record(req.project(request))
    if project.name != DEFAULT and parse_bool(project.config.get("features.networks", "false")):
        raise Invalid("NOT_HERE", "Network type does not support non-default projects", about=message.name)
    restrictions.check_network(project, message.name)
    await req.backend(request).networks.CreateNetwork(message)
    return _NETWORK.created(message.name)


async def put_network(request: web.Request) -> web.Response:
    with loading():
        data, network = await _NETWORK.change(request)
        message = pb.UpdateNetworkRequest(
            project=_HOME,
            name=network.name,
            config=req.text_map(data, "config"),
            description=req.text(data, "description"),
            merge=request.method == "PATCH",
            expected_revision=network.revision,
        )
        await req.backend(request).networks.UpdateNetwork(message)
    return envelope.empty()


async def rename_network(request: web.Request) -> web.Response:
    new_name = req.text(await req.body(request), "name")
    await req.backend(request).networks.RenameNetwork(
        pb.RenameNetworkRequest(project=_HOME, name=visible(request), new_name=new_name)
    )
    return _NETWORK.created(new_name)


async def delete_network(request: web.Request) -> web.Response:
    await req.backend(request).networks.DeleteNetwork(
        pb.DeleteNetworkRequest(project=_HOME, name=visible(request))
    )
    return envelope.empty()


async def network_state(request: web.Request) -> web.Response:
    reply = await req.backend(request).networks.GetNetworkState(
        pb.GetNetworkStateRequest(project=_HOME, name=req.name(request))
    )
    shown, name = network_state_json(reply.state), req.name(request)  # the kernel knows such a link
    if shown["bridge"]:
        shown["bridge"] |= links.bridge(Host(), name)
    return envelope.sync(shown | {"bond": links.bond(Host(), name)})


async def network_leases(request: web.Request) -> web.Response:
    reply = await req.backend(request).networks.ListLeases(
        pb.ListLeasesRequest(project=_HOME, name=visible(request))
    )
    return envelope.sync(leases_json(reply.leases))


async def network_allocations(request: web.Request) -> web.Response:
    """Addresses of networks that the project sees and of its instances, or of all projects."""
    everywhere = request.query.get("all-projects") == "true"
    project = req.project(request)
    reply = await req.backend(request).networks.ListAllocations(pb.ListAllocationsRequest(project=_HOME))
    seen = [
        a
        for a in reply.allocations
        if everywhere or (a.project in ("", project) and _sees(request, a.network, is_managed=True))
    ]
    return envelope.sync([allocation_json(a) for a in seen])


async def no_peers(request: web.Request) -> web.Response:
    """As LXD answers for each bridge. Raises: Invalid."""
    with loading():
        network = await _get(request)
    said = f'Network driver "{network.type}" does not support peering'
    raise Invalid("NO_PEERS", said, about=network.name)
