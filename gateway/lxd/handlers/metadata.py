"""/1.0/metadata/configuration: every key that can be set, as programs read it."""

from __future__ import annotations

from aiohttp import web

from core.configkeys import render
from gateway.lxd import envelope


async def configuration(request: web.Request) -> web.Response:
    return envelope.sync(render.metadata())
