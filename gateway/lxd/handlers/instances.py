"""/1.0/instances and its aliases /1.0/containers and /1.0/virtual-machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web

from core.errors import Invalid, Stale, Unsupported
from core.names import in_project
from gateway.lxd import envelope, etag, filters
from gateway.lxd import request as req
from gateway.lxd.handlers import backups, copies, downloads, members, migration, snapshots
from gateway.lxd.instancetypes import limits_of
from gateway.lxd.pages import Fields, Page
from gateway.lxd.sources import source_of
from gateway.lxd.views.instances import full_json, instance_json, state_json
from protos.podium.runtime.v1 import instance_pb2 as pb
from protos.podium.runtime.v1 import remote_pb2

_ACTIONS = {
    "start": pb.STATE_ACTION_START,
    "stop": pb.STATE_ACTION_STOP,
    "restart": pb.STATE_ACTION_RESTART,
    "freeze": pb.STATE_ACTION_FREEZE,
    "unfreeze": pb.STATE_ACTION_UNFREEZE,
}
_RETRIES = 4


def _prefix(request: web.Request) -> str:
    return "/1.0/" + request.path.split("/")[2]


async def list_instances(request: web.Request) -> web.Response:
    everywhere = request.query.get("all-projects") == "true"
    if everywhere and request.query.get("project"):
        raise Invalid("PROJECT_AND_ALL", "Cannot specify a project when requesting all projects")
    text = request.query.get("filter", "")
    holds = filters.parse(text) if text.strip() else None
    kind = request.query.get("instance-type", "")
    if kind not in ("", "container", "virtual-machine"):
        raise Invalid("BAD_TYPE", "Invalid instance type", about="instance-type")
    if "virtual-machine" in (kind, _prefix(request)[5:-1]):
        return envelope.sync([])
    depth, page = req.recursion(request), Page.of(request)
    if depth >= 2:
        return await _full_list(request, holds, page, everywhere=everywhere)
    view = pb.INSTANCE_VIEW_NAME if depth == 0 and holds is None else pb.INSTANCE_VIEW_SPEC
    reply = await req.backend(request).instances.ListInstances(
        _asked(request, view, page, everywhere=everywhere)
    )
    found: list[Any] = list(reply.instances)
    if holds is not None:
        found = [i for i in found if holds(instance_json(i))]
    if depth == 0:
        names = reply.names or [f"{i.project}/{i.name}" for i in found]
        shown: list[Any] = _urls(_prefix(request), names)
    else:
        shown = [instance_json(i) for i in found]
    return envelope.sync(shown, headers=page.following(reply.next_place, reply.revision))


def _asked(request: web.Request, view: Any, page: Page, *, everywhere: bool) -> pb.ListInstancesRequest:
    return pb.ListInstancesRequest(
        project=req.project(request),
        all_projects=everywhere,
        view=view,
        limit=page.limit,
        after=page.place,
    )


async def _full_list(
    request: web.Request, holds: Callable[[Any], bool] | None, page: Page, *, everywhere: bool
) -> web.Response:
    fields = Fields.of(request)
    message = _asked(request, pb.INSTANCE_VIEW_FULL, page, everywhere=everywhere)
    message.figures.extend(fields.figures)
    reply, taken = await asyncio.gather(
        req.backend(request).instances.ListInstances(message),
        snapshots.of_all(request, all_projects=everywhere) if fields.snapshots else _nothing(),
    )
    found = [full_json(i, taken.get((i.project, i.name))) for i in reply.instances]
    shown = [{**i, "state": fields.cut(i["state"])} for i in found if holds is None or holds(i)]
    return envelope.sync(shown, headers=page.following(reply.next_place, reply.revision))


async def _nothing() -> dict[tuple[str, str], list[dict[str, Any]]]:
    return {}


def _urls(prefix: str, names: Iterable[str]) -> list[str]:
    """Return the URLs of instances; *names* are PROJECT/NAME."""
    split = (name.split("/", 1) for name in names)
    return [in_project(f"{prefix}/{name}", project) for project, name in split]


async def _get(request: web.Request, view: Any) -> Any:
    reply = await req.backend(request).instances.GetInstance(
        pb.GetInstanceRequest(project=req.project(request), name=req.name(request), view=view)
    )
    return reply.instance


def etag_of(i: Any) -> str:
    """Return the tag over what a PUT may change; volatile keys change by themselves and stay out."""
    config = {k: v for k, v in i.config.items() if not k.startswith("volatile.")}
    devices = {name: dict(d.options) for name, d in i.devices.items()}
    return etag.of(i.architecture, config, devices, i.ephemeral, list(i.profiles), i.description)


async def get_instance(request: web.Request) -> web.Response:
    full = req.recursion(request) >= 1
    instance = await _get(request, pb.INSTANCE_VIEW_FULL if full else pb.INSTANCE_VIEW_SPEC)
    tag = etag_of(instance)
    if not full:
        request.app[etag.SHOWN].keep(req.project(request), req.name(request), tag, instance)
        return envelope.sync(instance_json(instance), etag=tag)
    taken, kept = await asyncio.gather(snapshots.of_instance(request), backups.of_instance(request))
    return envelope.sync(full_json(instance, taken, kept), etag=tag)


async def get_state(request: web.Request) -> web.Response:
    return envelope.sync(state_json(await _get(request, pb.INSTANCE_VIEW_FULL)))


async def create_instance(request: web.Request) -> web.Response:
    if request.headers.get("Content-Type") == "application/octet-stream":
        return await backups.import_instance(request)
    data = await req.body(request)
    _check_type(req.text(data, "type"))
    source, target = req.object_of(data, "source"), members.target_of(request)
    if source.get("type") == "copy":
        await members.require_beside(request, source, target)
        return await copies.copy_instance(request, data)
    if source.get("type") == "migration":
        members.require_here(request, target)
        return await migration.receive_instance(request, data)
    is_remote = req.text(source, "type") == "image" and bool(req.text(source, "server"))
    message = pb.CreateInstanceRequest(
        project=req.project(request),
        name=req.text(data, "name"),
        description=req.text(data, "description"),
        architecture=req.text(data, "architecture"),
        ephemeral=req.flag(data, "ephemeral"),
        config=limits_of(req.text(data, "instance_type")) | req.text_map(data, "config"),
        source=None if is_remote else source_of(source),
        start=req.flag(data, "start"),
    )
    if data.get("profiles") is not None:
        message.profiles.names.extend(req.texts(data, "profiles"))
        message.profiles.SetInParent()
    req.put_devices(message.devices, req.device_map(data))
    backend = req.backend(request)
    if is_remote:
        elsewhere = remote_pb2.CreateFromRemoteRequest(instance=message, image=downloads.source_of(source))
        reply = await (await members.placed(backend, backend.remote_create, target)).CreateFromRemote(
            elsewhere
        )
    else:
        reply = await (await members.placed(backend, backend.instances, target)).CreateInstance(message)
    return envelope.accepted(backend.accepted(reply.operation))


def _check_type(kind: str) -> None:
    if kind == "virtual-machine":
        raise Unsupported("NO_VMS", "Virtual machines are not supported; use type container")
    if kind not in ("", "container"):
        raise Invalid("BAD_TYPE", f"Invalid instance type {kind[:40]!r}; use container", about="type")


async def _update(request: web.Request, *, merge: bool) -> Any:
    """Send the change on the version whose ETag was compared; again when only volatile keys moved."""
    data = await req.body(request)
    if merge and data.get("restore"):
        raise Invalid("RESTORE", "Can't call PATCH in restore mode", about="restore")
    backend = req.backend(request)
    seen = request.app[etag.SHOWN].seen_by(request, req.project(request), req.name(request))
    for _ in range(_RETRIES):
        current, seen = seen or await _get(request, pb.INSTANCE_VIEW_SPEC), None
        etag.check(request, etag_of(current))
        if not merge:
            _refuse_unread(current, data)
        message = pb.UpdateInstanceRequest(
            project=req.project(request),
            name=req.name(request),
            description=req.text(data, "description"),
            architecture=req.text(data, "architecture"),
            config=req.text_map(data, "config"),
            merge=merge,
            expected_revision=current.revision,
        )
        if not merge or data.get("ephemeral") is not None:
            message.ephemeral = req.flag(data, "ephemeral")
        if data.get("profiles") is not None or not merge:
            message.profiles.names.extend(req.texts(data, "profiles"))
            message.profiles.SetInParent()
        req.put_devices(message.devices, req.device_map(data))
        try:
            reply = await backend.instances.UpdateInstance(message)
        except Stale:
            continue
        return backend.accepted(reply.operation)
    raise Stale("STALE", "The instance changes too often right now; read it again")


def _refuse_unread(current: Any, data: dict[str, Any]) -> None:
    """Raises: Invalid, in LXD's words, for a replacement by who did not read what it replaces.

    An empty file given to `lxc config edit` would take the instance's profiles, and its root disk with them.
    """
    wanted = req.text_map(data, "config")
    for key in current.config:
        if key.startswith("volatile.idmap.") and key not in wanted:
            raise Invalid("VOLATILE_STAYS", "Volatile idmap keys can't be deleted by the user", about=key)


async def put_instance(request: web.Request) -> web.Response:
    data = await req.body(request)
    if data.get("restore"):
        return await snapshots.restore(request, data)
    return envelope.accepted(await _update(request, merge=False))


async def patch_instance(request: web.Request) -> web.Response:
    operation = await _update(request, merge=True)
    final = await req.backend(request).wait(operation.id, 60)
    if error := final.error():
        raise error
    return envelope.empty()


async def post_instance(request: web.Request) -> web.Response:
    data = await req.body(request)
    if target := members.target_of(request):
        raise members.no_move(target)
    if req.flag(data, "migration") and copies.is_local_move(data):
        return await copies.move_instance(request, data)
    if req.flag(data, "migration"):
        return await migration.send_instance(request, data)
    backend = req.backend(request)
    new_name = req.text(data, "name") or req.name(request)
    reply = await backend.instances.RenameInstance(
        pb.RenameInstanceRequest(project=req.project(request), name=req.name(request), new_name=new_name)
    )
    return envelope.accepted(backend.accepted(reply.operation))


async def delete_instance(request: web.Request) -> web.Response:
    backend = req.backend(request)
    reply = await backend.instances.DeleteInstance(
        pb.DeleteInstanceRequest(project=req.project(request), name=req.name(request))
    )
    return envelope.accepted(backend.accepted(reply.operation))


def _action(data: dict[str, Any]) -> Any:
    action = req.text(data, "action")
    if action not in _ACTIONS:
        raise Invalid("BAD_ACTION", f"Unknown action: '{action[:40]}'", about="action")
    return _ACTIONS[action]


async def put_state(request: web.Request) -> web.Response:
    data = await req.body(request)
    backend = req.backend(request)
    reply = await backend.instances.ChangeInstanceState(
        pb.ChangeInstanceStateRequest(
            project=req.project(request),
            name=req.name(request),
            action=_action(data),
            timeout_s=req.number(data, "timeout"),
            force=req.flag(data, "force"),
            stateful=req.flag(data, "stateful"),
        )
    )
    return envelope.accepted(backend.accepted(reply.operation))


async def put_all_states(request: web.Request) -> web.Response:
    data = req.object_of(await req.body(request), "state")
    backend = req.backend(request)
    reply = await backend.instances.ChangeAllInstanceStates(
        pb.ChangeAllInstanceStatesRequest(
            project=req.project(request),
            action=_action(data),
            timeout_s=req.number(data, "timeout"),
            force=req.flag(data, "force"),
            stateful=req.flag(data, "stateful"),
        )
    )
    return envelope.accepted(backend.accepted(reply.operation))
