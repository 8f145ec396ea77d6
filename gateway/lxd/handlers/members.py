"""/1.0/cluster and its members, and what ?target= says of new instances."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Invalid, NotFound, Unsupported
from core.state import keys
from gateway.backend import Backend
from gateway.cluster import Cluster
from gateway.lxd import envelope, etag
from gateway.lxd import request as req
from gateway.lxd.views.members import member_json, state_json
from gateway.lxd.views.server import addresses
from protos.podium.cluster.v1 import cluster_pb2, join_pb2

_MEMBERS, _GROUP = "/1.0/cluster/members", "default"


# --- where instances go --------------------------------------------------------------------------------


def target_of(request: web.Request) -> str:
    """Return the member that is asked for. Raises: Invalid where there are no members."""
    target = str(request.query.get("target", ""))
    if target and req.backend(request).cluster is None:
        raise Invalid("NOT_CLUSTERED", "Target only allowed when clustered")
    return target


async def placed(backend: Backend, stub: Any, target: str) -> Any:
    """Return *stub* of the member that a new instance goes to; the one there is where there is but one."""
    if backend.cluster is None:
        return stub
    reply = await backend.placement.PlaceInstance(join_pb2.PlaceInstanceRequest(target=target))
    return stub.of(reply.member)


async def require_beside(request: web.Request, source: dict[str, Any], target: str) -> None:
    """A copy is made where its source is. Raises: Unsupported."""
    cluster = req.backend(request).cluster
    if not target or cluster is None:
        return
    project = req.text(source, "project") or req.project(request)
    where = await cluster.member_of(project, req.text(source, "source").partition("/")[0])
    if where != target:
        raise no_move(target)


def require_here(request: web.Request, target: str) -> None:
    """What arrives from elsewhere is made by the member that is asked. Raises: Unsupported."""
    cluster = req.backend(request).cluster
    if target and cluster and target != cluster.here:
        raise Unsupported(
            "ARRIVES_HERE",
            f"What arrives from another server is made here; ask member {target[:64]!r} itself",
        )


def no_move(target: str) -> Unsupported:
    return Unsupported(
        "NO_MOVE",
        f"Instances are not moved or copied to another member ({target[:64]}) yet; "
        "export it, and import it at that member",
        about=target,
    )


# --- members -------------------------------------------------------------------------------------------


async def get_cluster(request: web.Request) -> web.Response:
    cluster = req.backend(request).cluster
    shown = {
        "server_name": cluster.here if cluster else "",
        "enabled": cluster is not None,
        "member_config": [],
    }
    return envelope.sync(shown, etag=etag.of(shown))


async def put_cluster(request: web.Request) -> web.Response:
    data = await req.body(request)
    is_member, enabled = req.backend(request).cluster is not None, req.flag(data, "enabled")
    if is_member and enabled:
        raise Invalid("CLUSTERED", "This server is already clustered")
    if is_member:
        raise Unsupported("STAYS", "A member cannot leave its cluster yet; run podium purge on its host")
    if not enabled:
        raise Invalid("NOT_CLUSTERED", "Server is not clustered")
    raise Unsupported(
        "ON_THE_HOST",
        "This is done on the host, as root: podium cluster enable, podium cluster join TOKEN",
    )


def cluster_of(request: web.Request) -> Cluster:
    """Raises: Invalid."""
    cluster = req.backend(request).cluster
    if cluster is None:
        raise Invalid("NOT_CLUSTERED", "Server is not clustered")
    return cluster


async def _all(request: web.Request) -> list[dict[str, Any]]:
    cluster, backend = cluster_of(request), req.backend(request)
    reply = await backend.server.ListMembers(cluster_pb2.ListMembersRequest())
    records = {entry.record.name: entry.record for entry in cluster.members.entries()}
    return [member_json(m, records[m.name]) for m in reply.members if m.name in records]


async def list_members(request: web.Request) -> web.Response:
    cluster = cluster_of(request)
    if req.recursion(request):
        return envelope.sync(await _all(request))
    return envelope.sync([f"{_MEMBERS}/{entry.record.name}" for entry in cluster.members.entries()])


async def get_member(request: web.Request) -> web.Response:
    cluster_of(request)
    for member in await _all(request):
        if member["server_name"] == req.name(request):
            return envelope.sync(member, etag=etag.of(member["description"]))
    raise not_found(request)


def not_found(request: web.Request) -> NotFound:
    return NotFound("NO_MEMBER", "Cluster member not found", about=req.name(request)[:64])


async def get_member_state(request: web.Request) -> web.Response:
    cluster, name = cluster_of(request), req.name(request)
    if cluster.members.get(keys.member(name)) is None:
        raise not_found(request)
    return envelope.sync(state_json())


async def refuse_change(request: web.Request) -> web.Response:
    """What LXD has for members and Podium has not. Raises: Unsupported, Invalid."""
    cluster, name = cluster_of(request), req.name(request)
    if cluster.members.get(keys.member(name)) is None:
        raise not_found(request)
    raise Unsupported(
        "NOT_YET", "Members cannot be changed, renamed, evacuated or removed yet; purge one on its own host"
    )


async def refuse_certificate(request: web.Request) -> web.Response:
    cluster_of(request)
    raise Unsupported("NOT_YET", "Each member has a certificate of its own, which stays")


async def list_groups(request: web.Request) -> web.Response:
    """All members are in one, as LXD's are where nobody made others."""
    cluster = cluster_of(request)
    if not req.recursion(request):
        return envelope.sync([f"/1.0/cluster/groups/{_GROUP}"])
    names = [entry.record.name for entry in cluster.members.entries()]
    return envelope.sync([{"name": _GROUP, "description": "Default cluster group", "members": names}])


async def refuse_groups(request: web.Request) -> web.Response:
    """In the words that LXD has here."""
    if req.backend(request).cluster is None:
        raise Invalid("NOT_CLUSTERED", "This server is not clustered")
    raise Unsupported("NO_GROUPS", "Members cannot be grouped yet")


async def post_member(request: web.Request) -> web.Response:
    """Make a token with which a member can join."""
    if req.backend(request).cluster is None:
        raise Invalid("NOT_CLUSTERED", "This server is not clustered")
    data, backend = await req.body(request), req.backend(request)
    message = join_pb2.CreateJoinTokenRequest(
        name=req.text(data, "server_name"), addresses=addresses(backend.settings.url_address)
    )
    reply = await backend.joins.CreateJoinToken(message)
    return envelope.accepted(backend.accepted(reply.operation))


async def accept(request: web.Request) -> web.Response:
    """Let in who shows a token; what it brings and gets is in podium.cluster.v1.JoinService."""
    data = await req.body(request)
    reply = await req.backend(request).joins.AcceptMember(
        join_pb2.AcceptMemberRequest(
            secret=req.text(data, "secret"),
            name=req.text(data, "name"),
            certificate_request=req.text(data, "certificate_request").encode(),
            rpc_address=req.text(data, "address"),
        )
    )
    return envelope.sync(
        {
            "ca": reply.ca.decode(),
            "certificate": reply.certificate.decode(),
            "etcd_ca": reply.etcd_ca.decode(),
            "etcd_certificate": reply.etcd_certificate.decode(),
            "runs_etcd": reply.runs_etcd,
            "first_peers": reply.first_peers,
            "endpoints": list(reply.endpoints),
        }
    )
