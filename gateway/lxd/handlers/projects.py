"""Projects. A confined caller sees its own only."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Forbidden, NotFound
from core.state import keys
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.nouns import Noun
from gateway.lxd.views.others import project_json
from protos.podium.cluster.v1 import cluster_pb2 as pb

_RENAMED_S = 10.0


def _refuse_foreign(request: web.Request) -> None:
    """Raises: Forbidden for a project that a confined caller has nothing to do with."""
    own = request["caller"].projects
    if own is not None and req.name(request) not in own:
        raise Forbidden("NOT_AUTHORIZED", "not authorized")


async def _get(request: web.Request) -> Any:
    _refuse_foreign(request)
    reply = await req.backend(request).projects.GetProject(pb.GetProjectRequest(name=req.name(request)))
    return reply.project


def _writable(project: Any) -> tuple[Any, ...]:
    return dict(project.config), project.description


_PROJECT = Noun("/1.0/projects", _get, project_json, _writable)
get_project = _PROJECT.one


async def list_projects(request: web.Request) -> web.Response:
    reply = await req.backend(request).projects.ListProjects(pb.ListProjectsRequest())
    own = request["caller"].projects
    return _PROJECT.listing(request, [p for p in reply.projects if own is None or p.name in own])


def _from(data: dict[str, Any], name: str) -> pb.Project:
    return pb.Project(
        name=name, description=req.text(data, "description"), config=req.text_map(data, "config")
    )


async def post_project(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = _from(data, req.text(data, "name"))
    backend = req.backend(request)
    reply = await backend.projects.CreateProject(pb.CreateProjectRequest(project=message))
    await backend.project_cache.catch_up(reply.project.revision)
    return _PROJECT.created(message.name)


async def put_project(request: web.Request) -> web.Response:
    data, project = await _PROJECT.change(request)
    backend = req.backend(request)
    reply = await backend.projects.UpdateProject(
        pb.UpdateProjectRequest(
            project=_from(data, project.name),
            merge=request.method == "PATCH",
            expected_revision=project.revision,
        )
    )
    await backend.project_cache.catch_up(reply.project.revision)
    return envelope.empty()


async def rename_project(request: web.Request) -> web.Response:
    backend = req.backend(request)
    new_name = req.text(await req.body(request), "name")
    reply = await backend.projects.RenameProject(
        pb.RenameProjectRequest(name=req.name(request), new_name=new_name)
    )
    operation = backend.accepted(reply.operation)
    # Clients use the new name as soon as the operation has ended, so we must know it by then.
    await backend.wait(operation.id, _RENAMED_S)
    if entry := backend.operations.get(keys.operation(operation.id)):
        await backend.project_cache.catch_up(entry.revision)
    return envelope.accepted(operation)


async def delete_project(request: web.Request) -> web.Response:
    await req.backend(request).projects.DeleteProject(pb.DeleteProjectRequest(name=req.name(request)))
    return envelope.empty()


async def project_state(request: web.Request) -> web.Response:
    _refuse_foreign(request)
    try:
        reply = await req.backend(request).projects.GetProjectState(
            pb.GetProjectStateRequest(project=req.name(request))
        )
    except NotFound as exc:
        raise NotFound(exc.reason, f"Fetch project database object: {exc.message}", about=exc.about) from None
    shown = {name: {"Limit": r.limit, "Usage": r.usage} for name, r in sorted(reply.resources.items())}
    return envelope.sync({"resources": shown})
