"""Address sets, which rules of ACLs name as $NAME. The shape is that of LXD's successor; LXD 5.0 has none."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.handlers.networkacls import home, own_home
from gateway.lxd.nouns import Noun
from gateway.lxd.views.networks import address_set_json
from protos.podium.network.v1 import acl_pb2 as pb


async def _get(request: web.Request) -> Any:
    message = pb.GetAddressSetRequest(project=home(request), name=req.name(request))
    return (await req.backend(request).acls.GetAddressSet(message)).set


def _writable(found: Any) -> tuple[Any, ...]:
    return found.name, found.description, dict(found.config), list(found.addresses)


_SET = Noun("/1.0/network-address-sets", _get, address_set_json, _writable, of_project=True)
get_set = _SET.one


async def list_sets(request: web.Request) -> web.Response:
    message = pb.ListAddressSetsRequest(project=home(request))
    return _SET.listing(request, (await req.backend(request).acls.ListAddressSets(message)).sets)


async def post_set(request: web.Request) -> web.Response:
    data = await req.body(request)
    found = _asked(data, own_home(request), req.text(data, "name"))
    await req.backend(request).acls.CreateAddressSet(pb.CreateAddressSetRequest(set=found))
    return _SET.created(found.name)


async def put_set(request: web.Request) -> web.Response:
    own_home(request)
    data, found = await _SET.wanted(request)
    message = pb.UpdateAddressSetRequest(
        set=_asked(data, found.project, found.name), expected_revision=found.revision
    )
    await req.backend(request).acls.UpdateAddressSet(message)
    return envelope.empty()


async def rename_set(request: web.Request) -> web.Response:
    new_name = req.text(await req.body(request), "name")
    message = pb.RenameAddressSetRequest(project=own_home(request), name=req.name(request), new_name=new_name)
    await req.backend(request).acls.RenameAddressSet(message)
    return _SET.created(new_name)


async def delete_set(request: web.Request) -> web.Response:
    message = pb.DeleteAddressSetRequest(project=own_home(request), name=req.name(request))
    await req.backend(request).acls.DeleteAddressSet(message)
    return envelope.empty()


def _asked(data: dict[str, Any], project: str, name: str) -> pb.AddressSet:
    return pb.AddressSet(
        project=project,
        name=name,
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
        addresses=req.texts(data, "addresses"),
    )
