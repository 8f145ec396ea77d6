"""Images of other servers: found there, received like any upload, never brought twice."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from weakref import WeakValueDictionary

from core.errors import Invalid, NotFound, WrongState
from core.names import alias_name, is_whole_fingerprint
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from core.records import Image
from core.state import keys
from services.image.ports import CAME, Known, Remotes, RemoteSource
from services.image.store import ImageStore
from services.image.usecases.choices import Choices
from services.image.usecases.claims import Claims
from services.image.usecases.copies import Copies
from services.image.usecases.images import Images
from services.image.usecases.imports import Header, Imports
from services.image.usecases.progress import how_far

KIND = "image.download"
_TELL_EVERY_S = 0.5
_PROTOCOLS = ("simplestreams", "lxd", "url", "oci")
# Their servers say what an image is called, also what is no longer so in its metadata.yaml.
_DESCRIBED = ("simplestreams", "lxd")
_INSIDE = "may_reach_inside"
Part = tuple[str, bytes]


@dataclass(frozen=True)
class Wanted:
    """What was asked for. cached: it comes as a side effect of a launch.

    asked_in: the project whose clients hear of the operation; empty for the one that stores it.
    """

    project: str
    source: RemoteSource
    public: bool = False
    auto_update: bool = False
    cached: bool = False
    profiles: tuple[str, ...] = ("default",)
    properties: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    asked_in: str = ""


@dataclass(frozen=True)
class _Taken:
    """Another one brings what a server said. wants: what it claimed."""

    wants: tuple[str, ...]
    said: Known


class Downloads:
    def __init__(
        self,
        store: ImageStore,
        remotes: Remotes,
        imports: Imports,
        images: Images,
        choices: Choices,
        runner: Runner,
        claims: Claims,
        copies: Copies,
    ) -> None:
        self._claims = claims
        self._copies = copies
        self._store = store
        self._remotes = remotes
        self._imports = imports
        self._images = images
        self._choices = choices
        self._runner = runner
        # Each is there while somebody holds or awaits it; clients choose the places.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        steps = (Step("fetch", self._fetch, self._take_back),)
        runner.register(Story(KIND, "Downloading image", steps, may_cancel=True))

    async def accept(self, wanted: Wanted) -> Operation:
        """Raises: Invalid."""
        source = wanted.source
        if source.protocol not in _PROTOCOLS:
            raise Invalid("BAD_PROTOCOL", f"Unsupported protocol: {source.protocol[:40]}", about="protocol")
        if source.protocol != "url" and not source.wanted:
            raise Invalid("NO_IMAGE", "must specify one of alias or fingerprint for init from image")
        for name in wanted.aliases:
            alias_name(name)
        architecture = self._choices.architecture(wanted.project) if source.by_alias else ""
        # A secret is not kept, so what came by one cannot be followed; each launch by it asks anew.
        is_followed = self._choices.updates_cached(wanted.project) and not source.secret
        wanted = replace(
            wanted,
            source=replace(source, architecture=architecture),
            auto_update=is_followed if wanted.cached else wanted.auto_update,
        )
        return await self._runner.accept(
            KIND, project=wanted.asked_in or wanted.project, input=asdict(wanted)
        )

    async def _fetch(self, ctx: Context) -> None:
        given = ctx.input
        wanted = Wanted(
            **{**given, "source": RemoteSource(**given["source"]), "profiles": tuple(given["profiles"])}
        )
        if known := self._cached(wanted):
            ctx.result(fingerprint=known.fingerprint, size=str(known.size_bytes))
            return
        await self.fetch(ctx, wanted)

    async def fetch(self, ctx: Context, wanted: Wanted) -> str:
        """Bring what the server has now, unless it is here; return its fingerprint. Repeatable."""
        id = ctx.operation.child_id
        if self._runner.find(id) is None:
            # Whoever wants the same waits here, and finds it there afterwards.
            async with self._lock(_place(wanted)):
                known = self._here(ctx, wanted) or await self._bring(ctx, wanted, id)
            if known:
                ctx.result(fingerprint=known.fingerprint, size=str(known.size_bytes))
                return known.fingerprint
        done = await self._runner.wait(id)
        ctx.result(**{k: v for k, v in done.metadata.items() if not k.endswith("_progress")})
        if error := done.error():
            raise error
        return str(done.metadata["fingerprint"])

    async def _take_back(self, ctx: Context) -> None:
        """Remove what came, unless it was here before."""
        await self._images.take_back(ctx.operation.child_id, ctx.input["project"])

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _here(self, ctx: Context, wanted: Wanted) -> Image | None:
        """Return what another one brought while this one waited; a refresh wants to look for itself.

        Raises: WrongState, when nobody may be asked.
        """
        known = self._cached(wanted) if ctx.operation.kind == KIND else None
        if known is None and self._choices.is_offline:
            where = wanted.source.server[:200]
            words = f"{where} is not asked while images.offline is set, and the image is not here"
            raise WrongState("OFFLINE", words)
        return known

    def _cached(self, wanted: Wanted) -> Image | None:
        """Return what is here already without asking anybody.

        For a launch that is what another one brought from the same place, while it is kept up to date.
        """
        is_offline = self._choices.is_offline
        if not wanted.cached and not is_offline:
            return None
        entry = self._store.images.get(keys.image(wanted.project, wanted.source.wanted))
        if entry and not wanted.source.by_alias:
            return entry.record
        found = [i for i in self._of_same_place(wanted) if is_offline or i.auto_update or not i.cached]
        return max(found, key=lambda image: image.uploaded_at, default=None)

    def _of_same_place(self, wanted: Wanted) -> list[Image]:
        origin = origin_of(wanted.source)
        images = [entry.record for entry in self._store.images.entries(keys.images(wanted.project))]
        return [image for image in images if origin and image.origin == origin]

    async def _bring(self, ctx: Context, wanted: Wanted, id: str) -> Image | None:
        """Have it received by operation *id*; return the image instead when the project has it already."""
        while True:
            try:
                found = await self._received(ctx, wanted, id)
            except Invalid as exc:
                # Who sent other bytes than it promised is not asked again; a mirror may have the right ones.
                if exc.reason != "BAD_HASH" or not self._remotes.has_others(wanted.source):
                    raise
                continue
            if not isinstance(found, _Taken):
                return found
            await self._claims.released(found.wants)
            if known := await self._known(wanted.project, found.said):
                return known

    async def _received(self, ctx: Context, wanted: Wanted, id: str) -> Image | _Taken | None:
        """As _bring(), but say so where another one brings it already."""
        said: list[Known] = []
        async with aclosing(self._remotes.parts(wanted.source, said.append)) as parts:
            first = await anext(parts, None)
            if first is None:
                raise Invalid("NO_BYTES", "The server sent no image")
            wants = _claimed(wanted, said[0])
            if not await self._claims.take(wants, ctx.operation.id):
                return _Taken(wants, said[0])
            try:
                return await self._first(ctx, wanted, id, said[0], _all(first, parts))
            finally:
                await asyncio.shield(self._claims.give_back(wants, ctx.operation.id))

    async def _first(
        self, ctx: Context, wanted: Wanted, id: str, said: Known, parts: AsyncGenerator[Part, None]
    ) -> Image | None:
        """Bring what nobody else brings meanwhile, from another project that has it or from outside."""
        if known := await self._known(wanted.project, said):
            return known
        if other := self._of_another_project(wanted, said):
            await parts.aclose()
            parts = self._copies.parts(other.fingerprint)
        async with aclosing(_telling(ctx, parts, said.size)) as all_parts:
            await self._imports.receive(id, _header(wanted, said), all_parts)
        done = await self._runner.wait(id)
        # So that whoever waits for the same finds it: our view may not have been told yet.
        with contextlib.suppress(NotFound):
            image = await self._store.image(wanted.project, str(done.metadata.get("fingerprint", "")))
            if said.digest and done.error_reason == "EXISTS":
                return image.record  # it was uploaded here, and only its bytes told that
        return None

    async def _known(self, project: str, said: Known) -> Image | None:
        """Return the image that the project has already, by its fingerprint or a registry's digest."""
        if not said.digest:
            entry = await self._store.just_stored_image(project, said.fingerprint)
            return entry.record if entry else None
        await self._store.just_stored(project)
        images = [entry.record for entry in self._store.images.entries(keys.images(project))]
        return next((i for i in images if _is_of_digest(i, said)), None)

    def _of_another_project(self, wanted: Wanted, said: Known) -> Image | None:
        """Return the same image where another project has it from the same server.

        Not from any server: who only says that it has some fingerprint would have the image given to it.
        """
        asked = _place_of(origin_of(wanted.source))
        if not asked or wanted.source.secret:
            return None
        for entry in self._store.images.entries():
            image = entry.record
            is_same = _is_of_digest(image, said) if said.digest else image.fingerprint == said.fingerprint
            if is_same and _place_of(image.origin) == asked:
                return image
        return None


def _header(wanted: Wanted, known: Known) -> Header:
    return Header(
        wanted.project,
        known.filename,
        wanted.public,
        {**known.properties, **wanted.properties},
        known.fingerprint,
        dict.fromkeys(wanted.aliases, ""),
        is_described=wanted.source.protocol in _DESCRIBED,
        auto_update=wanted.auto_update,
        cached=wanted.cached,
        profiles=wanted.profiles,
        origin=origin_of(wanted.source),
        asked_in=wanted.asked_in,
    )


async def _all(first: Part, rest: AsyncGenerator[Part, None]) -> AsyncGenerator[Part, None]:
    yield first
    async for part in rest:
        yield part


async def _telling(ctx: Context, parts: AsyncGenerator[Part, None], size: int) -> AsyncGenerator[Part, None]:
    """Yield all parts, and tell how far they are, about twice a second."""
    got, begun = 0, time.monotonic()
    told = begun
    async for part, chunk in parts:
        if part == CAME:
            got = int(chunk)
        else:
            yield part, chunk
            got += len(chunk)
        now = time.monotonic()
        if now - told >= _TELL_EVERY_S:
            told = now
            await ctx.progress(download_progress=how_far(part, got, size, now - begun))


def _digest(image: Image) -> str:
    properties = image.metadata.get("properties")
    return str(properties.get("oci.digest", "")) if isinstance(properties, dict) else ""


def _is_of_digest(image: Image, said: Known) -> bool:
    return image.origin.get("protocol") == "oci" and _digest(image) == said.digest


def _place_of(origin: dict[str, str]) -> tuple[str, ...]:
    """Return which server that is, and how it is known to be that one; () for none."""
    return tuple(origin[key] for key in ("protocol", "server", "certificate")) if origin else ()


def _claimed(wanted: Wanted, said: Known) -> tuple[str, ...]:
    """Return what only one may bring at a time: this image into this project, and from this server.

    Not the image alone: who says that it has some fingerprint, and never sends it, keeps off nobody else.
    """
    what = said.fingerprint or said.digest
    place = "\0".join(_place_of(origin_of(wanted.source)) or (wanted.source.protocol, wanted.source.server))
    server = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{what} {wanted.project}", f"{what} {server}"


def origin_of(source: RemoteSource) -> dict[str, str]:
    """Return where an image came from, as its record keeps it; a secret is used up and left out."""
    if source.protocol == "url":
        return {}
    origin = {
        "server": source.server,
        "protocol": source.protocol,
        "alias": source.wanted,
        "certificate": source.certificate,
    }
    # Who asked for it may have been allowed more than whoever refreshes it.
    return origin | ({_INSIDE: "true"} if source.may_reach_inside else {})


def source_of(origin: dict[str, str]) -> RemoteSource | None:
    """Return where a newer version of an image would be; None for one that came from no alias."""
    alias = origin.get("alias", "")
    if not alias or is_whole_fingerprint(alias):
        return None
    return RemoteSource(
        origin["protocol"],
        origin["server"],
        alias,
        by_alias=True,
        certificate=origin.get("certificate", ""),
        may_reach_inside=_INSIDE in origin,
    )


def _place(wanted: Wanted) -> str:
    source = wanted.source
    return "\0".join((wanted.project, source.protocol, source.server, source.project, source.wanted))
