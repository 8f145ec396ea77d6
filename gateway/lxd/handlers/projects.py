"""Projects. A confined caller sees its own only."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Forbidden
from core.names import project_name
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.nouns import Noun
from gateway.lxd.views.others import project_json
from protos.podium.cluster.v1 import cluster_pb2 as pb

_COUNTED = ("containers", "cpu", "disk", "instances", "memory", "networks", "processes", "virtual-machines")


async def _get(request: web.Request) -> Any:
    own = request["caller"].projects
    if own is not None and req.name(request) not in own:
        raise Forbidden("NOT_AUTHORIZED", "not authorized")
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
    backend, (data, _) = req.backend(request), await _PROJECT.change(request)
    new_name = project_name(req.text(data, "name"))
    reply = await backend.projects.RenameProject(
        pb.RenameProjectRequest(name=req.name(request), new_name=new_name)
    )
    return envelope.accepted(backend.accepted(reply.operation))


async def delete_project(request: web.Request) -> web.Response:
    await req.backend(request).projects.DeleteProject(pb.DeleteProjectRequest(name=req.name(request)))
    return envelope.empty()


async def project_state(request: web.Request) -> web.Response:
    project = await _get(request)
    count = sum(1 for reference in project.used_by if reference.startswith("instances/"))
    usage = {"containers": count, "instances": count}
    resources = {name: {"Limit": -1, "Usage": usage.get(name, 0)} for name in _COUNTED}
    return envelope.sync({"resources": resources})
