"""Images of other servers, asked for by themselves or as the source of an instance."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from aiohttp import web

from core.errors import Invalid, Unsupported
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.handlers.publish import alias_names
from protos.podium.common.v1.source_pb2 import RemoteSource
from protos.podium.image.v1 import download_pb2 as pb

SOURCES = ("image", "url")


async def download(request: web.Request, data: dict[str, Any], project: str) -> web.Response:
    """Accept a download; *data* is the body of POST images with source.type image or url."""
    backend = req.backend(request)
    reply = await backend.downloads.DownloadImage(
        pb.DownloadImageRequest(
            project=project,
            source=source_of(req.object_of(data, "source")),
            public=req.flag(data, "public"),
            auto_update=req.flag(data, "auto_update"),
            profiles=req.texts(data, "profiles"),
            without_profiles=has_no_profiles(data),
            properties=req.text_map(data, "properties"),
            aliases=alias_names(data),
            asked_in=req.project(request),
        )
    )
    return envelope.accepted(backend.accepted(reply.operation))


def has_no_profiles(data: dict[str, Any]) -> bool:
    """Whether an image shall have none: an empty list says so, and none at all means the default one."""
    return data.get("profiles") == []


def source_of(source: dict[str, Any]) -> RemoteSource:
    """Return where a source of type image or url lies. Raises: Invalid, Unsupported."""
    if req.text(source, "mode") not in ("", "pull"):
        raise Unsupported("NO_PUSH", "Images are pulled here; use --mode=pull or --mode=relay")
    if req.text(source, "image_type") not in ("", "container"):
        raise Unsupported("NO_VMS", "Images of virtual machines are not supported")
    if req.text(source, "type") == "url":
        if not (url := req.text(source, "url")):
            raise Invalid("NO_URL", "Missing URL", about="source.url")
        return RemoteSource(protocol="url", server=url)
    if not (server := req.text(source, "server")):
        raise Invalid("NO_SERVER", "Source server is required for pull mode", about="source.server")
    protocol = req.text(source, "protocol") or "lxd"
    server, credentials = _without_credentials(server) if protocol == "oci" else (server, "")
    return RemoteSource(
        protocol=protocol,
        server=server,
        alias=req.text(source, "alias"),
        fingerprint=req.text(source, "fingerprint"),
        certificate=req.text(source, "certificate"),
        secret=credentials or req.text(source, "secret"),
        remote_project=req.text(source, "project"),
    )


def _without_credentials(server: str) -> tuple[str, str]:
    """Return the address of a registry, and "USER:PASSWORD" if it has them. Raises: Invalid."""
    try:
        parts = urlsplit(server)
    except ValueError:
        raise Invalid(
            "BAD_URL", "The registry's address is no http or https address", about="server"
        ) from None
    if "@" not in parts.netloc:
        return server, ""
    credentials, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=host).geturl(), unquote(credentials)
