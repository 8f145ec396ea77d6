"""Profiles."""

from __future__ import annotations

import contextlib
from typing import Any

from aiohttp import web

from core.errors import NotFound, Unavailable
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.nouns import Noun
from gateway.lxd.views.others import profile_json
from protos.podium.cluster.v1 import cluster_pb2 as pb
from protos.podium.runtime.v1.instance_pb2 import FollowProfileRequest

_FOLLOW_S = 300.0


def _project(request: web.Request) -> str:
    return req.backend(request).effective_project(req.project(request), "profiles")


async def _get(request: web.Request) -> Any:
    try:
        reply = await req.backend(request).profiles.GetProfile(
            pb.GetProfileRequest(project=_project(request), name=req.name(request))
        )
    except NotFound as exc:
        words = "Fetch profile" if request.method == "GET" else f'Failed to retrieve profile "{exc.about}"'
        raise NotFound(exc.reason, f"{words}: {exc.message}", about=exc.about) from None
    return reply.profile


def _writable(profile: Any) -> tuple[Any, ...]:
    shown = profile_json(profile)
    return shown["config"], shown["description"], shown["devices"]


_PROFILE = Noun("/1.0/profiles", _get, profile_json, _writable, of_project=True)
get_profile = _PROFILE.one


async def list_profiles(request: web.Request) -> web.Response:
    reply = await req.backend(request).profiles.ListProfiles(
        pb.ListProfilesRequest(project=_project(request))
    )
    return _PROFILE.listing(request, reply.profiles)


def _from(request: web.Request, data: dict[str, Any], name: str) -> pb.Profile:
    message = pb.Profile(
        project=_project(request),
        name=name,
        description=req.text(data, "description"),
        config=req.text_map(data, "config"),
    )
    req.put_devices(message.devices, req.device_map(data))
    return message


async def post_profile(request: web.Request) -> web.Response:
    data = await req.body(request)
    message = _from(request, data, req.text(data, "name"))
    await req.backend(request).profiles.CreateProfile(pb.CreateProfileRequest(profile=message))
    return _PROFILE.created(message.name)


async def put_profile(request: web.Request) -> web.Response:
    """The answer waits for the running instances that use it, as clients expect it to be in effect."""
    data, profile = await _PROFILE.change(request)
    reply = await req.backend(request).profiles.UpdateProfile(
        pb.UpdateProfileRequest(
            profile=_from(request, data, profile.name),
            merge=request.method == "PATCH",
            expected_revision=profile.revision,
        )
    )
    new = reply.profile
    follow = FollowProfileRequest(project=new.project, profile=new.name, revision=new.revision)
    # A runtime that is away follows when it is back; the change itself is saved.
    with contextlib.suppress(Unavailable):
        await req.backend(request).instances.FollowProfile(follow, timeout=_FOLLOW_S)
    return envelope.empty()


async def rename_profile(request: web.Request) -> web.Response:
    new_name = req.text(await req.body(request), "name")
    await req.backend(request).profiles.RenameProfile(
        pb.RenameProfileRequest(project=_project(request), name=req.name(request), new_name=new_name)
    )
    return _PROFILE.created(new_name)


async def delete_profile(request: web.Request) -> web.Response:
    await req.backend(request).profiles.DeleteProfile(
        pb.DeleteProfileRequest(project=_project(request), name=req.name(request))
    )
    return envelope.empty()
