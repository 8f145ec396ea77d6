"""The gRPC face of what came with images, and of rendering: convert, call, convert."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from core.errors import Invalid
from core.names import is_fingerprint
from protos.podium.image.v1 import about_pb2 as pb
from protos.podium.image.v1 import about_pb2_grpc as rpc
from services.image.domain import metadata
from services.image.templates.runner import Job, TemplateRunner
from services.image.usecases.about import Abouts


class AboutServicer(rpc.AboutServiceServicer):
    def __init__(self, abouts: Abouts, templates: TemplateRunner) -> None:
        self._abouts = abouts
        self._templates = templates

    async def GetAbout(self, request: pb.GetAboutRequest, context: Any) -> pb.GetAboutResponse:
        if request.fingerprint and not is_fingerprint(request.fingerprint):  # it becomes the name of a file
            raise Invalid("BAD_FINGERPRINT", "A fingerprint has hex digits", about=request.fingerprint[:64])
        about = await self._abouts.of(request.fingerprint, request.base_dir)
        told = orjson.dumps(about.metadata).decode() if about.metadata else ""
        return pb.GetAboutResponse(metadata_json=told, templates=about.templates)

    async def CheckMetadata(self, request: pb.CheckMetadataRequest, context: Any) -> pb.CheckMetadataResponse:
        checked = await asyncio.to_thread(metadata.parse, request.text)
        return pb.CheckMetadataResponse(metadata_json=orjson.dumps(checked).decode())

    async def RenderTemplates(
        self, request: pb.RenderTemplatesRequest, context: Any
    ) -> pb.RenderTemplatesResponse:
        jobs = [Job(j.path, j.name, j.source, j.trigger, dict(j.properties)) for j in request.jobs]
        texts = await self._templates.render(_context(request.context_json), jobs)
        return pb.RenderTemplatesResponse(texts=texts)


def _context(text: str) -> dict[str, Any]:
    """Raises: Invalid."""
    try:
        found = orjson.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Invalid("BAD_JSON", "context_json must be a JSON object", about="context_json")
    return found
