"""Bytes of files on their way to or from a gateway of this host, through a pipe that it is lent.

They are moved by splice(2) in the threads for guests' files, so neither this process nor a message
holds them. The gateway gave a ticket; the pipe goes out with it: file TICKET (core.rpc.line).
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from core.descriptors import big_pipe, readable, writable
from core.errors import Unavailable
from core.rpc.line import Line
from services.runtime.kernel.patience import Descriptor
from services.runtime.usecases.inside import files

# Below it a pipe costs more than it saves.
WORTHWHILE = 1 << 20
Call = Callable[..., Awaitable[Any]]


async def pour_out(call: Call, file: Descriptor, path: str, line: Line, ticket: str) -> None:
    """Send the file to the gateway until its end, or until nobody reads any more. Raises: Unavailable."""
    with _pipe(line, ticket, ours=1) as pipe:
        while await call(_two, path, file, pipe):
            await pipe.use(writable)


async def pour_in(call: Call, file: Descriptor, path: str, line: Line, ticket: str) -> None:
    """Write to the file what the gateway sends, until it closes the pipe. Raises: Unavailable."""
    with _pipe(line, ticket, ours=0) as pipe:
        while await call(_two, path, pipe, file):
            await pipe.use(readable)


def _two(path: str, source: Descriptor, target: Descriptor) -> bool:
    """Neither is closed while it is at work, whoever loses patience."""
    return source.use(lambda a: target.use(lambda b: files.pour(a, b, path)))


@contextmanager
def _pipe(line: Line, ticket: str, *, ours: int) -> Iterator[Descriptor]:
    ends = big_pipe()
    os.set_blocking(ends[ours], False)
    pipe = Descriptor(ends[ours])
    try:
        told = line.tell("file", ticket, fds=[ends[1 - ours]])
        os.close(ends[1 - ours])
        if not told:
            raise Unavailable("NO_LINE", "The gateway cannot be reached; try again")
        yield pipe
    finally:
        pipe.close()
