"""What objects with a name share: listings, an ETag when shown, changes on the version that was seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from core.names import in_project
from gateway.lxd import envelope, etag
from gateway.lxd import request as req


def _name(item: Any) -> str:
    return str(item.name)


@dataclass(frozen=True)
class Noun:
    """One kind of object.

    get: read the one that the request names. show: as JSON. writable: the parts a PUT may change, for
    the ETag. of_project: its URL names the project. name: what stands in its URL.
    """

    path: str
    get: Callable[[web.Request], Awaitable[Any]]
    show: Callable[[Any], dict[str, Any]]
    writable: Callable[[Any], tuple[Any, ...]]
    of_project: bool = False
    name: Callable[[Any], str] = _name

    def listing(self, request: web.Request, items: Iterable[Any]) -> web.Response:
        """Return the objects, or their URLs without recursion."""
        if req.recursion(request):
            return envelope.sync([self.show(item) for item in items])
        project = req.project(request) if self.of_project else ""
        return envelope.sync([in_project(f"{self.path}/{self.name(item)}", project) for item in items])

    def created(self, name: str) -> web.Response:
        return envelope.created(f"{self.path}/{name}")

    async def one(self, request: web.Request) -> web.Response:
        item = await self.get(request)
        return envelope.sync(self.show(item), etag=self.tag(item))

    def tag(self, item: Any) -> str:
        return etag.of(*self.writable(item))

    async def change(self, request: web.Request) -> tuple[dict[str, Any], Any]:
        """Return the body and the object it is for. Raises: Stale when If-Match names another version."""
        data, item = await req.body(request), await self.get(request)
        etag.check(request, self.tag(item))
        return data, item

    async def wanted(self, request: web.Request) -> tuple[dict[str, Any], Any]:
        """Return what the object is to be, by PATCH with what stays as it is, and what it is; as change()."""
        data, item = await self.change(request)
        return (req.merged(data, self.show(item)) if request.method == "PATCH" else data), item
