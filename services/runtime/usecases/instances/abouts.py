"""Metadata and templates of instances: as the image has them until they are changed, then their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from core.errors import Invalid, LimitReached, NotFound, Unsupported, WrongState
from core.records import Instance, Snapshot
from core.templates import (
    MOST_TEMPLATE_BYTES,
    MOST_TEMPLATES,
    checked_properties,
    checked_templates,
    is_template_name,
)
from services.runtime.usecases.host import Host
from services.runtime.usecases.peers import About

_METADATA, _TEMPLATES = "metadata.yaml", "templates"
_REMEMBERED = 64
_MOST_TOGETHER = 8 << 20
_FIELDS = ("architecture", "creation_date", "expiry_date", "properties", "templates")


class Beside(Protocol):
    """Keeps what an instance has of its own in its volume. Both block."""

    def read(self, volume: Path) -> About | None: ...

    def write(self, volume: Path, about: About) -> None: ...


class AboutInstances:
    def __init__(self, host: Host, beside: Beside) -> None:
        self._host = host
        self._beside = beside
        self._of_images: dict[tuple[str, str], About] = {}
        self._changing = asyncio.Lock()

    async def of(self, instance: Instance) -> About:
        return await self._of(instance, instance.id)

    async def of_snapshot(self, snapshot: Snapshot) -> About:
        return await self._of(snapshot.instance, snapshot.id)

    async def _of(self, instance: Instance, volume: str) -> About:
        folder = self._folder(instance.pool, volume)
        own = await asyncio.to_thread(self._beside.read, folder) if folder else None
        return own or await self._of_image(instance)

    async def _of_image(self, instance: Instance) -> About:
        """Return what came with its image, asked for once: images do not change."""
        if not instance.image:
            return About()
        key = (instance.image, instance.base_dir)
        if key not in self._of_images:
            home = self._host.store.home_of(instance.project, "images")
            self._of_images[key] = await self._host.images.about(home, *key)
            if len(self._of_images) > _REMEMBERED:
                self._of_images.pop(next(iter(self._of_images)))
        return self._of_images[key]

    def _folder(self, pool: str, volume: str) -> Path | None:
        with suppress(NotFound, Unsupported):
            return self._host.driver_of(pool).volume(pool, volume)
        return None

    async def set_metadata(self, instance: Instance, wanted: dict[str, Any], *, merge: bool) -> None:
        """Raises: Invalid."""

        def changed(about: About) -> About:
            return replace(about, metadata=_checked(_merged(about.metadata, wanted) if merge else wanted))

        await self._change(instance, changed)

    async def received(self, project: str, volume: Path, files: Mapping[str, bytes]) -> None:
        """Keep in *volume* what another server sent beside a root: metadata.yaml and templates/NAME.

        Raises: Invalid, LimitReached, WrongState.
        """
        if _METADATA not in files:
            return
        names = {path: path.removeprefix(f"{_TEMPLATES}/") for path in files if path != _METADATA}
        for name in names.values():
            _check_name(name)
        about = About(
            await self._host.images.check_metadata(project, files[_METADATA]),
            {name: files[path] for path, name in names.items()},
        )
        _check_size(about)
        await self._write(volume, about)

    async def write_template(self, instance: Instance, name: str, content: bytes) -> None:
        """Raises: Invalid, LimitReached."""
        _check_name(name)

        def changed(about: About) -> About:
            return replace(about, templates={**about.templates, name: content})

        await self._change(instance, changed)

    async def delete_template(self, instance: Instance, name: str) -> None:
        """Raises: Invalid, NotFound."""
        _check_name(name)

        def changed(about: About) -> About:
            if name not in about.templates:
                raise NotFound("NO_TEMPLATE", f'Template "{name}" not found', about=name)
            return replace(about, templates={n: t for n, t in about.templates.items() if n != name})

        await self._change(instance, changed)

    async def _change(self, instance: Instance, changed: Callable[[About], About]) -> None:
        async with self._changing:
            about = changed(await self.of(instance))
            _check_size(about)
            folder = self._folder(instance.pool, instance.id)
            if folder is None:
                raise WrongState(
                    "NO_VOLUME", "The instance has no volume to keep this in", about=instance.name
                )
            await self._write(folder, about)

    async def _write(self, volume: Path, about: About) -> None:
        try:
            await asyncio.to_thread(self._beside.write, volume, about)
        except OSError as exc:
            raise WrongState("NOT_WRITTEN", f"This could not be stored: {exc.strerror}") from exc


def _bad(why: str) -> Invalid:
    return Invalid("BAD_METADATA", f"The metadata is not usable: {why}")


def _merged(old: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return *old* with what is *wanted*; properties and templates by name, as LXD has it."""
    maps = {k: {**old.get(k, {}), **v} for k, v in wanted.items() if isinstance(v, Mapping)}
    return {**old, **wanted, **maps}


def _checked(raw: dict[str, Any]) -> dict[str, Any]:
    found = {field: raw.get(field) for field in _FIELDS}
    for field in ("creation_date", "expiry_date"):
        value = found[field] or 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 40:
            raise _bad(f"{field} is not a time in seconds since 1970")
        found[field] = value
    architecture = "" if found["architecture"] is None else found["architecture"]
    if not isinstance(architecture, str) or len(architecture) > 64:
        raise _bad("architecture is not a name")
    found["architecture"] = architecture
    found["properties"] = checked_properties(found["properties"], _bad)
    found["templates"] = checked_templates(found["templates"], _bad)
    return found


def _check_name(name: str) -> None:
    if not is_template_name(name):
        raise Invalid("BAD_TEMPLATE_NAME", "Invalid template filename", about=name[:64])


def _check_size(about: About) -> None:
    if len(about.templates) > MOST_TEMPLATES or sum(map(len, about.templates.values())) > _MOST_TOGETHER:
        raise LimitReached("TEMPLATES", "An instance may have 256 templates of 8 MiB together")
    if any(len(text) > MOST_TEMPLATE_BYTES for text in about.templates.values()):
        raise LimitReached("TEMPLATE", "A template may have 256 KiB")
