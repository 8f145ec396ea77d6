"""What the use cases need from the other services. Implemented by clients/; fakes serve the tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from services.runtime.domain.applications import Application
from services.runtime.domain.arrivals import Arrived
from services.runtime.domain.devices.plan import Translation
from services.runtime.ports import NicPlan


@dataclass(frozen=True)
class FoundImage:
    """An image; application: of one that is for one program, None of a whole system."""

    fingerprint: str
    architecture: str
    properties: dict[str, str]
    profiles: tuple[str, ...]
    application: Application | None = None


@dataclass(frozen=True)
class PreparedImage:
    squashfs: Path
    rootfs_dir: str


@dataclass(frozen=True)
class About:
    """What an instance has beside its root: metadata.yaml as parsed, templates by file name."""

    metadata: dict[str, Any] = field(default_factory=dict)
    templates: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendering:
    """One template to be rendered for one path."""

    path: str
    name: str
    source: bytes
    trigger: str
    properties: dict[str, str]


@dataclass(frozen=True)
class RemoteImage:
    """Where an image is, as download.proto's RemoteSource has it. outside_only: for confined callers."""

    protocol: str
    server: str
    alias: str = ""
    fingerprint: str = ""
    certificate: str = ""
    secret: str = ""
    remote_project: str = ""
    outside_only: bool = False


# Told how far something is, in words for people.
Tell = Callable[[str], Awaitable[None]]


class Images(Protocol):
    async def find(self, project: str, fingerprint: str, alias: str) -> FoundImage: ...

    async def match(self, project: str, properties: Mapping[str, str]) -> FoundImage | None: ...

    async def prepare(self, project: str, fingerprint: str) -> PreparedImage: ...

    async def about(self, project: str, fingerprint: str, base_dir: str) -> About:
        """Return what came with the root in folder *base_dir* of a base; "" for an image's own root."""
        ...

    async def check_metadata(self, project: str, text: bytes) -> dict[str, Any]:
        """Return what a metadata.yaml of another server says. Raises: Invalid."""
        ...

    async def render(self, project: str, context: Mapping[str, Any], jobs: list[Rendering]) -> list[bytes]:
        """Return the texts, in order. Raises: Invalid, naming the template that is wrong."""

    async def bring(self, project: str, image: RemoteImage, tell: Tell) -> str:
        """Have an image of another server here, and return its fingerprint.

        Raises: Invalid, NotFound, Forbidden, Unavailable, TooLate.
        """
        ...

    async def take(self, project: str, ticket: str) -> Arrived:
        """Return what was uploaded under *ticket*. Raises: NotFound."""
        ...


@dataclass(frozen=True)
class Reserved:
    """NICs as decided. made: the names inside of those that were plugged; None where plug() is still due."""

    nics: tuple[NicPlan, ...]
    made: tuple[str, ...] | None = None


class Networks(Protocol):
    async def reserve(
        self,
        id: str,
        project: str,
        name: str,
        nics: Mapping[str, Mapping[str, str]],
        hwaddrs: Mapping[str, str],
        *,
        at_rest: bool,
        pid: int = 0,
    ) -> Reserved:
        """Have the NICs decided; also plugged into a running one, whose init is *pid*, if possible."""
        ...

    async def plug(self, id: str, pid: int) -> tuple[str, ...]:
        """Make the reserved NICs exist in the running instance whose init is *pid*.

        Return the names inside of those that were made, which are down.
        """
        ...

    async def unplug(self, id: str) -> None:
        """Take back what the NICs of an instance that ended have on the host."""
        ...

    async def release(self, id: str) -> None: ...

    async def forward(self, id: str, translations: Sequence[Translation]) -> None:
        """Replace the addresses of the host that lead to the instance."""
        ...
