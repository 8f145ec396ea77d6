"""Asks the CRIU of this host whether it works here: once for each version of it, when somebody needs it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess

from services.runtime.domain.criu import Checked, obstacle
from services.runtime.kernel.processes import Child

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PATIENCE_S = 10.0
_MOST = 1 << 16


class Criu:
    """Implements ports.Checkpoints. *path*: where programs are looked for."""

    def __init__(self, path: str = _PATH, *, patience_s: float = _PATIENCE_S) -> None:
        self._path = path
        self._patience_s = patience_s
        self._asked: tuple[tuple[str, int, int, int], Checked] | None = None
        self._asking = asyncio.Lock()

    async def obstacle(self) -> str:
        if (program := shutil.which("criu", path=self._path)) is None:
            return obstacle(None)
        found = os.stat(program)
        version = (program, found.st_ino, found.st_size, found.st_mtime_ns)
        async with self._asking:
            if self._asked is None or self._asked[0] != version:
                self._asked = version, await self._check(program)
            return obstacle(self._asked[1])

    async def _check(self, program: str) -> Checked:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        env = {"LANG": "C.UTF-8", "PATH": self._path}
        try:
            child = Child([program, "check"], stdout=writing, stderr=subprocess.STDOUT, env=env)
        except OSError as exc:
            os.close(reading)
            return Checked(1, os.strerror(exc.errno or 0))
        finally:
            os.close(writing)
        with os.fdopen(reading, "rb") as output:
            read = asyncio.create_task(asyncio.to_thread(output.read, _MOST))
            try:
                async with asyncio.timeout(self._patience_s):
                    code: int | None = await child.wait()
            except TimeoutError:
                os.killpg(child.pid, signal.SIGKILL)  # with what it started, which has the pipe too
                code = None
                await child.wait()
            return Checked(code, (await read).decode(errors="replace"))
