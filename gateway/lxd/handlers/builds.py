"""POST /1.0/images with a recipe as source (docs/recipes.md)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from core.errors import Invalid
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.handlers.publish import alias_names
from protos.podium.image.v1 import image_pb2 as pb

SOURCES = ("build",)


async def build(request: web.Request, data: dict[str, Any], project: str) -> web.Response:
    source, backend = req.object_of(data, "source"), req.backend(request)
    recipe = req.text(source, "recipe")
    if not recipe:
        raise Invalid("NO_RECIPE", "A recipe is needed", about="source.recipe")
    message = pb.BuildImageRequest(
        project=project, recipe=recipe.encode(), aliases=alias_names(data), force=req.flag(source, "force")
    )
    reply = await backend.images.BuildImage(message)
    return envelope.accepted(backend.accepted(reply.operation))
