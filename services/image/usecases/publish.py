"""Images made of instances: packed by the runtime, received like any upload."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import yaml

from core.compression import parse_compression
from core.errors import AlreadyExists
from core.names import alias_name
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from core.records import Instance
from services.image.ports import About, Roots
from services.image.store import ImageStore
from services.image.usecases.choices import Choices
from services.image.usecases.images import Images
from services.image.usecases.imports import Header, Imports

KIND = "image.publish"
_SPLIT = "squashfs"


@dataclass(frozen=True)
class Wanted:
    """What was asked for. properties None: those of the image that the instance was made of.

    compression "": a split image with a squashfs, the fastest to make and to launch.
    """

    project: str
    instance_project: str
    instance: str
    snapshot: str = ""
    public: bool = False
    properties: dict[str, str] | None = None
    aliases: list[str] = field(default_factory=list)
    compression: str = ""
    expires_at: float = 0.0


class Publish:
    def __init__(
        self,
        store: ImageStore,
        roots: Roots,
        imports: Imports,
        images: Images,
        choices: Choices,
        runner: Runner,
    ) -> None:
        self._choices = choices
        self._store = store
        self._images = images
        self._roots = roots
        self._imports = imports
        self._runner = runner
        steps = (Step("pack", self._pack, self._take_back),)
        runner.register(Story(KIND, "Downloading image", steps, may_cancel=True))

    async def accept(self, wanted: Wanted) -> Operation:
        """Raises: Invalid, NotFound."""
        for name in wanted.aliases:
            alias_name(name)
        if not wanted.compression:
            wanted = replace(wanted, compression=self._choices.compression(wanted.project))
        parse_compression(wanted.compression or _SPLIT)
        await self._source(wanted)
        # Of the project that asked, though it may share its images: there its client listens.
        return await self._runner.accept(KIND, project=wanted.instance_project, input=asdict(wanted))

    async def _source(self, wanted: Wanted) -> Instance:
        return await self._store.instance(wanted.instance_project, wanted.instance, wanted.snapshot)

    async def _pack(self, ctx: Context) -> None:
        """Have it received by an operation of its own, which a crash does not make begin a second time."""
        id = ctx.operation.child_id
        if self._runner.find(id) is None:
            wanted = Wanted(**ctx.input)
            async with aclosing(self._parts(ctx, wanted)) as parts:
                await self._imports.receive(id, _header(wanted), parts)
        done = await self._runner.wait(id)
        ctx.result(**done.metadata)
        if error := done.error():
            raise _published_before(done, error)

    async def _take_back(self, ctx: Context) -> None:
        await self._images.take_back(ctx.operation.child_id, ctx.input["project"])

    async def _parts(self, ctx: Context, wanted: Wanted) -> AsyncGenerator[tuple[str, bytes], None]:
        async def tell(how_far: str) -> None:
            await ctx.progress(create_image_from_container_pack_progress=f"Image pack: {how_far}")

        source = await self._source(wanted)
        about = await self._roots.about(wanted.instance_project, wanted.instance, wanted.snapshot)
        files = _files(about, source, wanted)
        compression = wanted.compression or _SPLIT
        is_split = compression == _SPLIT
        if is_split:
            yield "metadata", _tar(files)
        packed = self._roots.pack(
            wanted.instance_project,
            wanted.instance,
            wanted.snapshot,
            compression=compression,
            files={} if is_split else files,
            tell=tell,
        )
        async with aclosing(packed):
            async for chunk in packed:
                yield "rootfs" if is_split else "unified", chunk


def _header(wanted: Wanted) -> Header:
    return Header(
        wanted.project,
        public=wanted.public,
        aliases=dict.fromkeys(wanted.aliases, ""),
        created_at=time.time(),
        is_ours=(wanted.compression or _SPLIT) == _SPLIT,
    )


def _published_before(done: Operation, error: Exception) -> Exception:
    if isinstance(error, AlreadyExists) and error.about == done.metadata.get("fingerprint"):
        return AlreadyExists("EXISTS", f"The image already exists: {error.about}", about=error.about)
    return error


def _files(about: About, source: Instance, wanted: Wanted) -> dict[str, bytes]:
    """Return metadata.yaml and the templates of the image-to-be, by path."""
    metadata: dict[str, Any] = {
        "architecture": source.architecture,
        # That of its base, as LXD has it: what did not change since it was published is the same image.
        "creation_date": about.metadata.get("creation_date") or int(source.created_at) or 1,
        "properties": about.metadata.get("properties", {}),
        "templates": about.metadata.get("templates", {}),
    }
    if application := about.metadata.get("oci"):
        metadata["oci"] = application
    if wanted.expires_at:
        metadata["expiry_date"] = int(wanted.expires_at)
    if wanted.properties is not None:
        metadata["properties"] = wanted.properties
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).encode()
    templates = {f"templates/{name}": content for name, content in about.templates.items()}
    return {"metadata.yaml": text, **templates}


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        if len(files) > 1:
            folder = tarfile.TarInfo("templates")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), 0o644
            tar.addfile(about, io.BytesIO(content))
    return buffer.getvalue()
