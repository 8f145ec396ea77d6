"""What rsync's two ends say to each other through the websockets that the gateway holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from core.errors import Unavailable
from services.runtime.domain.offers import Answer
from services.runtime.kernel.trees import Root

_MARK_S = 60.0
_STALL_S = 300.0


class Wire(Protocol):
    """The way to the other server."""

    async def answer(self, answer: Answer) -> None: ...

    async def read(self) -> bytes | None:
        """Return the next bytes; None at a mark, after which another folder begins. Raises: Unavailable."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def mark(self) -> None: ...


class End(Protocol):
    """One running end of rsync."""

    async def read(self) -> bytes: ...

    async def write(self, data: bytes) -> None: ...

    def end_input(self) -> None: ...

    async def wait(self) -> None:
        """Raises: Unavailable when it did not do all."""
        ...

    def beside(self) -> Mapping[str, bytes]:
        """Return what came beside a root: metadata.yaml, templates/NAME. Raises: LimitReached. Blocks."""
        ...


class Transit(Protocol):
    """Starts ends of rsync that see nothing but what they are given."""

    def receiving(
        self, folder: Path, name: str, features: frozenset[str]
    ) -> AbstractAsyncContextManager[End]:
        """Receive into *folder*, which the other side calls *name*; "": it has no other name."""
        ...

    def sending(
        self,
        files: Mapping[str, bytes],
        roots: Mapping[str, Root],
        top: str,
        features: frozenset[str],
        *,
        bound: str = "",
    ) -> AbstractAsyncContextManager[End]:
        """Send what lies in *top* ("": all) of a folder made of *files* and *roots*.

        *bound*: how much in a second, as rsync's --bwlimit takes it; "" for all it can.
        """
        ...


async def through(wire: Wire, end: End, *, is_sender: bool = False) -> None:
    """Let *end* talk with its other end until both have said all. Raises: Unavailable.

    rsync's own deadline holds for nobody who still listens: it says now and then that it is alive.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_STALL_S) as deadline:

            def beat() -> None:
                if not deadline.expired():
                    deadline.reschedule(loop.time() + _STALL_S)

            await _both(
                asyncio.ensure_future(_going(wire, end, beat if is_sender else _nothing)),
                asyncio.ensure_future(_coming(wire, end, beat)),
            )
    except TimeoutError:
        raise Unavailable("STALLED", f"The other server sent nothing for {_STALL_S:g} s") from None


async def _both(going: asyncio.Future[None], coming: asyncio.Future[None]) -> None:
    try:
        await asyncio.wait({going, coming}, return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            coming.result()
        await going
        try:
            async with asyncio.timeout(_MARK_S):
                await coming
        except TimeoutError:
            raise Unavailable("NO_END", "The other server did not come to an end") from None
    finally:
        going.cancel()
        coming.cancel()
        await asyncio.gather(going, coming, return_exceptions=True)


async def _going(wire: Wire, end: End, beat: Callable[[], None]) -> None:
    while data := await end.read():
        await wire.write(data)
        beat()
    await wire.mark()
    await end.wait()


async def _coming(wire: Wire, end: End, beat: Callable[[], None]) -> None:
    while (data := await wire.read()) is not None:
        beat()
        await end.write(data)
    end.end_input()


def _nothing() -> None:
    return None
