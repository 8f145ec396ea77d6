"""What the host itself knows and tells: its kernel, its devices, its boots, its clock; and probes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Kernel(Protocol):
    """What the host's kernel knows."""

    def unknown_syscalls(self, names: Iterable[str]) -> list[str]: ...

    def missing_modules(self, names: Iterable[str]) -> list[str]:
        """Return those that are neither loaded nor built in."""
        ...


class Checkpoints(Protocol):
    """The state of processes, kept beside their files."""

    async def obstacle(self) -> str:
        """Return why it cannot be kept on this host. Quick but for the first time."""
        ...


class HostEvents(Protocol):
    """Devices of the host that come and go."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def watch(self, path: str) -> None:
        """Hear of *path* too. Repeatable."""
        ...

    def tell(self, id: str) -> None:
        """Have the instance *id* looked at."""
        ...

    async def changed(self) -> set[str]:
        """Return when a device may have come or gone, or was told of; with the instances that were told."""
        ...


class Probes(Protocol):
    """Questions to instances. A question that gets no answer in time is answered with no."""

    async def run(self, argv: list[str], program: str, timeout_s: float) -> bool:
        """Run a host command that enters the guest; see Engine.exec_argv and program."""
        ...

    async def connects(self, address: str, port: int, timeout_s: float) -> bool: ...

    async def answers(self, address: str, port: int, path: str, timeout_s: float) -> bool:
        """Say whether a GET of *path* is answered with 2xx or 3xx."""
        ...


class Boots(Protocol):
    """Tells a start of the host from a start of this service."""

    def is_new(self) -> bool:
        """Whether the host was booted since seen() was last called."""
        ...

    def seen(self) -> None: ...

    def forget(self) -> None:
        """Make the next start of this service count as one of the host."""
        ...


class Ticks(Protocol):
    """Remembers until when schedules were kept."""

    def last(self) -> float:
        """Return unix seconds; 0.0 for never."""
        ...

    def seen(self, at: float) -> None: ...
