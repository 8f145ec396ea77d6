"""One pass over an archive by a process of its own, which has a program unpack it (see layer.py).

Nothing touches the disk but the squashfs, and no byte of an archive stays in the memory of this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path

from core.descriptors import Writer, big_pipe
from core.errors import Invalid, TooLate
from services.image.formats.form import Form
from services.image.formats.layer import REFUSED
from services.image.formats.scanner import Limits

_ROOT = Path(__file__).resolve().parents[3]
_SAID_MAX = 1 << 16
_MAX_BYTES = 64 << 30
_MAX_CPU_S = 900


def bad(why: str) -> Invalid:
    return Invalid("BAD_ARCHIVE", f"The image is not usable: {why}")


class Pipeline:
    """The process and its input. open(), then run() to its end or cancelled."""

    def __init__(self, limits: Limits, form: Form = Form.ANY) -> None:
        self._limits = limits
        self._form = form
        self._input: Writer | None = None
        self._process: Process

    async def open(self, reader: list[str], received: Path, target: Path, source: int | None) -> None:
        """Start it; *reader* unpacks, and is empty where the archive is not packed.

        source: its stdin, a descriptor or None for what comes through write(). received: the file
        that holds what was received so far.
        """
        if source is not None:
            self._process = await self._start(reader, received, target, source)
            return
        theirs, ours = big_pipe()
        self._input = Writer(ours)
        try:
            self._process = await self._start(reader, received, target, theirs)
        except BaseException:
            self.end_input()
            raise
        finally:
            os.close(theirs)

    async def write(self, data: bytes) -> bool:
        """Give it its next bytes; say whether it still took them."""
        return self._input is not None and await self._input.write(data)

    def input(self) -> int:
        """Return a descriptor of the caller's for what write() writes to."""
        assert self._input
        return self._input.duplicate()

    def end_input(self) -> None:
        """No more comes. Whoever writes calls it, also after run(): a write may be waiting until then."""
        if self._input:
            self._input.close()

    async def _start(self, reader: list[str], received: Path, target: Path, source: int) -> Process:
        limits = self._limits
        numbers = (limits.tree_bytes, limits.entries, limits.ratio, limits.ratio_floor_bytes)
        return await asyncio.create_subprocess_exec(
            *("prlimit", f"--fsize={_MAX_BYTES}", f"--cpu={_MAX_CPU_S}", f"--as={limits.memory_bytes}", "--"),
            *(sys.executable, "-S", "-B", "-m", "services.image.formats.layerchild"),
            *(str(received), str(target), ",".join(map(str, numbers)), self._form, *reader),
            stdin=source,
            stdout=DEVNULL,
            stderr=PIPE,
            cwd="/",
            env={"PYTHONPATH": str(_ROOT), "LANG": "C.UTF-8", "PATH": os.defpath},
            start_new_session=True,
        )

    async def run(self, limit_s: float | None) -> None:
        """Return when the squashfs is complete. Leaves no process or descriptor, however it ends.

        Raises: Invalid, TooLate.
        """
        said = asyncio.ensure_future(_said(self._process))
        try:
            async with asyncio.timeout(limit_s):
                verdict = await self._process.wait()
        except TimeoutError:
            raise TooLate("ARCHIVE_TIMEOUT", "The image took too long to read; it was refused") from None
        finally:
            if self._process.returncode is None:
                # With the program that it runs, which it ends itself otherwise.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
            await asyncio.wait([said])
        why = said.result().decode(errors="replace").strip().splitlines()[:1]
        if verdict == REFUSED and why:
            raise Invalid("BAD_ARCHIVE", why[0][:300])
        if verdict:
            raise bad("reading it took too much time or memory")


async def _said(process: Process) -> bytes:
    """Return the beginning of what a program says; the rest is read too, lest it wait for a listener."""
    assert process.stderr
    said = b""
    while chunk := await process.stderr.read(_SAID_MAX):
        said += chunk[: _SAID_MAX - len(said)]
    return said
