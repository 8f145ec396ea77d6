"""What came with the root of an instance: metadata.yaml and its templates, from image or backup."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from core.errors import Internal, Invalid
from core.templates import MOST_TEMPLATE_BYTES
from services.image.domain import metadata as meta
from services.image.ports import About, Blobs, Converter
from services.image.usecases.imports import nothing

_ALL_MAX = 8 << 20


class Abouts:
    def __init__(
        self, blobs: Blobs, converter: Converter, ensure: Callable[[str], Awaitable[None]] = nothing
    ) -> None:
        """*ensure*: fetches the files of a base from another member, where they are not here."""
        self._ensure = ensure
        self._blobs = blobs
        self._converter = converter

    async def of(self, fingerprint: str, base_dir: str) -> About:
        """Return what came with the root in folder *base_dir* of a base; nothing where it has none."""
        if not fingerprint:
            return About()
        with contextlib.suppress(Internal):
            await self._ensure(fingerprint)
        part = self._blobs.part(fingerprint, "metadata")
        if base_dir or not part.exists():
            folder = base_dir.rpartition("/")[0]
            return await self._read(self._blobs.squashfs(fingerprint), folder and f"{folder}/")
        id = str(uuid.uuid4())
        try:
            unpacked = self._blobs.staging(id) / "metadata.squashfs"
            await self._converter.convert(part, unpacked)
            return await self._read(unpacked, "")
        finally:
            await asyncio.to_thread(self._blobs.drop_staging, id)

    async def _read(self, squashfs: Path, folder: str) -> About:
        try:
            metadata = meta.parse(
                await self._converter.read(squashfs, f"{folder}metadata.yaml", meta.MAX_BYTES)
            )
        except Invalid:
            return About()
        templates: dict[str, bytes] = {}
        for name in {template["template"] for template in metadata["templates"].values()}:
            path = f"{folder}templates/{name}"
            with contextlib.suppress(Invalid):  # one that is missing is missed when it is to be rendered
                templates[name] = await self._converter.read(squashfs, path, MOST_TEMPLATE_BYTES)
            if sum(map(len, templates.values())) > _ALL_MAX:
                raise meta.bad("its templates are larger than 8 MiB together")
        return About(metadata, templates)
