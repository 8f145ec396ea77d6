"""Bring what an image's templates say into the root: what triggered it, who renders it, where it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from core.errors import Invalid, WrongState
from core.policy.expansion import Expanded
from core.records import Instance
from services.runtime.domain import applications, idmaps
from services.runtime.ports import NicPlan
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.abouts import AboutInstances
from services.runtime.usecases.instances.volatile import APPLY_TEMPLATE
from services.runtime.usecases.peers import About, Rendering

START = "start"
_RESOLVER = "/etc/resolv.conf"
# resolv.conf(5): more are not read.
_MOST_SERVERS = 3


class Planting(Protocol):
    """Writes into roots that are mounted and do not run. Both block."""

    def present(self, root: Path, paths: list[str]) -> set[str]: ...

    def plant(self, root: Path, files: dict[str, bytes], owner: tuple[int, int]) -> None: ...


class Templates:
    def __init__(self, host: Host, abouts: AboutInstances, planting: Planting) -> None:
        self._host = host
        self._abouts = abouts
        self._planting = planting

    async def apply(self, instance: Instance, volatile: Mapping[str, str], root: Path) -> None:
        """Render what waits for this start, then what every start does.

        *root* is mounted, and nothing runs in it. Repeatable. Raises: Invalid, WrongState.
        """
        about = await self._abouts.of(instance)
        for trigger in (volatile.get(APPLY_TEMPLATE, ""), START):
            if trigger:
                await self._apply(instance, volatile, root, about, trigger)

    async def _apply(
        self, instance: Instance, volatile: Mapping[str, str], root: Path, about: About, trigger: str
    ) -> None:
        wanted = {
            path: template
            for path, template in about.metadata.get("templates", {}).items()
            if trigger in template["when"]
        }
        once = [path for path, template in wanted.items() if template["create_only"]]
        there = await asyncio.to_thread(self._planting.present, root, once) if once else set[str]()
        jobs = [
            _job(path, template, about, trigger) for path, template in wanted.items() if path not in there
        ]
        if not jobs:
            return
        context = _context(instance, volatile, self._host.expanded(instance))
        texts = await self._host.images.render(instance.project, context, jobs)
        files = {job.path: text for job, text in zip(jobs, texts, strict=True)}
        await self._plant(instance, root, files, "A template could not be written")

    async def name_servers(self, instance: Instance, nics: Sequence[NicPlan], root: Path) -> None:
        """Write which servers of names there are where nothing inside would: an application asks no DHCP."""
        told = [nic.told for nic in nics if nic.told.name_servers]
        if not told or applications.of(self._host.expanded(instance).config) is None:
            return
        lines = [f"nameserver {server}" for nic in told for server in nic.name_servers][:_MOST_SERVERS]
        if search := " ".join(dict.fromkeys(domain for nic in told for domain in nic.search)):
            lines.insert(0, f"search {search}")
        files = {_RESOLVER: "".join(f"{line}\n" for line in lines).encode()}
        await self._plant(instance, root, files, f"{_RESOLVER} could not be written")

    async def _plant(self, instance: Instance, root: Path, files: dict[str, bytes], failure: str) -> None:
        try:
            await asyncio.to_thread(self._planting.plant, root, files, idmaps.of(instance).root)
        except OSError as exc:
            raise WrongState("NOT_TEMPLATED", f"{failure}: {exc}"[:300]) from exc


def _job(path: str, template: Mapping[str, Any], about: About, trigger: str) -> Rendering:
    name = template["template"]
    if name not in about.templates:
        raise Invalid("NO_TEMPLATE", f'Template "{name}" for {path[:128]} not found', about=name)
    return Rendering(path, name, about.templates[name], trigger, template["properties"])


def _context(instance: Instance, volatile: Mapping[str, str], expanded: Expanded) -> dict[str, Any]:
    """Return what LXD lets templates see, under LXD's names."""
    shown = {
        "name": instance.name,
        "type": "container",
        "architecture": instance.architecture,
        "ephemeral": str(instance.ephemeral).lower(),
        "privileged": expanded.config.get("security.privileged") or "false",
    }
    return {
        "container": shown,
        "instance": shown,
        "config": {**expanded.config, **volatile},
        "devices": expanded.devices,
    }
