"""Network ACLs. A project without networks of its own has those of the default project, which it may read."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Forbidden, Invalid
from core.rpc.identity import current_identity
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.nouns import Noun
from gateway.lxd.views.networks import RULE_FIELDS, acl_json
from protos.podium.network.v1 import acl_pb2 as pb


def home(request: web.Request) -> str:
    """Return the project whose ACLs, zones and the like a request is about. Raises: NotFound."""
    return req.backend(request).effective_project(req.project(request), "networks")


def own_home(request: web.Request) -> str:
    """The same for what is to be changed. Raises: Forbidden for confined callers whose it is not."""
    project, own = home(request), current_identity().projects
    if own is not None and project not in own:
        raise Forbidden("NOT_AUTHORIZED", "not authorized")
    return project


async def _get(request: web.Request) -> Any:
    message = pb.GetAclRequest(project=home(request), name=req.name(request))
    return (await req.backend(request).acls.GetAcl(message)).acl


def _writable(acl: Any) -> tuple[Any, ...]:
    shown = acl_json(acl)
    return acl.name, acl.description, shown["config"], shown["ingress"], shown["egress"]


_ACL = Noun("/1.0/network-acls", _get, acl_json, _writable, of_project=True)
get_acl = _ACL.one


async def list_acls(request: web.Request) -> web.Response:
    reply = await req.backend(request).acls.ListAcls(pb.ListAclsRequest(project=home(request)))
    return _ACL.listing(request, reply.acls)


async def post_acl(request: web.Request) -> web.Response:
    data = await req.body(request)
    acl = _asked(data, own_home(request), req.text(data, "name"))
    await req.backend(request).acls.CreateAcl(pb.CreateAclRequest(acl=acl))
    return _ACL.created(acl.name)


async def put_acl(request: web.Request) -> web.Response:
    own_home(request)
    data, acl = await _ACL.wanted(request)
    wanted = _asked(data, acl.project, acl.name)
    message = pb.UpdateAclRequest(acl=wanted, expected_revision=acl.revision)
    await req.backend(request).acls.UpdateAcl(message)
    return envelope.empty()


async def rename_acl(request: web.Request) -> web.Response:
    new_name = req.text(await req.body(request), "name")
    message = pb.RenameAclRequest(project=own_home(request), name=req.name(request), new_name=new_name)
    await req.backend(request).acls.RenameAcl(message)
    return _ACL.created(new_name)


async def delete_acl(request: web.Request) -> web.Response:
    message = pb.DeleteAclRequest(project=own_home(request), name=req.name(request))
    await req.backend(request).acls.DeleteAcl(message)
    return envelope.empty()


async def get_acl_log(request: web.Request) -> web.Response:
    """Who is confined sees no log of what others send."""
    message = pb.GetAclLogRequest(project=own_home(request), name=req.name(request))
    reply = await req.backend(request).acls.GetAclLog(message)
    return web.Response(body=reply.lines, content_type="application/octet-stream")


def _asked(data: dict[str, Any], project: str, name: str) -> pb.Acl:
    return pb.Acl(
        project=project,
        name=name,
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
        ingress=_rules(data, "ingress"),
        egress=_rules(data, "egress"),
    )


def _rules(data: dict[str, Any], field: str) -> list[pb.AclRule]:
    return [
        pb.AclRule(**{name: req.text(rule, name) for name in RULE_FIELDS}) for rule in objects(data, field)
    ]


def objects(data: dict[str, Any], field: str) -> list[dict[str, Any]]:
    """Return a list of objects. Raises: Invalid."""
    value = data.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Invalid("BAD_TYPE", f"{field} must be a list of objects", about=field)
    return value
