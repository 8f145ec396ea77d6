"""Keep a confined caller to its projects. The services' own check, whatever the gateway let through.

Such a caller may call what names one of its projects. Where a project shares the images or profiles of the
default project, it may read those. What names no project is an administrator's business, but for reads
of what all share, and for things with an id that nobody guesses. A refusal says no more than the gateway's,
and the same for projects that exist and that do not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from core.errors import Forbidden, NotFound
from core.rpc.identity import Identity

HomeOf = Callable[[str, str], str]
_SHARED = {
    "podium.image.v1.ImageService": "images",
    "podium.image.v1.ShareService": "images",
    "podium.image.v1.AboutService": "images",
    "podium.cluster.v1.ProfileService": "profiles",
    "podium.network.v1.AclService": "networks",
    "podium.network.v1.ZoneService": "networks",
}
_READS = ("Get", "List", "Export", "Prepare")
# Who may have an image may pass it on.
_PASSES_ON = frozenset({"CreateImageSecret", "PushImage"})
# Networks and pools are shared by all projects; only administrators change them.
_COMMON = (
    *("podium.network.v1.NetworkService", "podium.network.v1.ListenerService"),
    "podium.runtime.v1.StorageService",
)
_FREE = frozenset(
    {
        "GetServer",
        "ListMembers",
        "ListProjects",
        "GetRuntimeInfo",
        "GetCertificate",
        "ListCertificates",
        "RedeemTrust",
        "AcceptMember",
        "PlaceInstance",
        "GetOperation",
        "CancelOperation",
        "ConnectChannel",
        "PlugNics",
        "UnplugNics",
        "ReleaseNics",
        "RaiseWarning",
        "ResolveWarning",
    }
)


def check(path: str, request: Any, caller: Identity, home_of: HomeOf) -> None:
    """Raises: Forbidden when *caller* is confined and *request* to "/service/method" leads elsewhere."""
    if caller.projects is None:
        return
    _, service, method = path.split("/")
    if not _may(service, method, request, caller.projects, home_of):
        raise Forbidden("NOT_AUTHORIZED", "not authorized")


def _may(service: str, method: str, request: Any, own: tuple[str, ...], home_of: HomeOf) -> bool:
    is_read = method.startswith(_READS) or method in _PASSES_ON
    if method in _FREE:
        return True
    if service in _COMMON and method != "ListVolumes":
        return is_read
    named = [request.name] if method == "GetProject" else list(_projects_in(request))
    if not named or getattr(request, "all_projects", False):
        return False
    shared = _homes(own, _SHARED[service], home_of) if is_read and service in _SHARED else frozenset()
    return all(project in own or project in shared for project in named)


def _homes(own: tuple[str, ...], feature: str, home_of: HomeOf) -> frozenset[str]:
    found = set()
    for project in own:
        with contextlib.suppress(NotFound):
            found.add(home_of(project, feature))
    return frozenset(found)


def _projects_in(message: Any) -> Iterator[str]:
    """The values of all fields that name a project, in *message* and in the messages within it."""
    field = message.DESCRIPTOR.fields_by_name.get("project")
    if field is not None and field.type == field.TYPE_STRING:
        yield message.project
    if asked_in := getattr(message, "asked_in", ""):
        yield asked_in
    for inner, value in message.ListFields():
        if inner.message_type is not None and hasattr(value, "DESCRIPTOR"):
            yield from _projects_in(value)
