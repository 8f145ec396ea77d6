"""Start the process that serves the files of an instance by SFTP, with the ids of its guest."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

from core.errors import WrongState
from services.runtime.domain.idmaps import IdMap, Range
from services.runtime.kernel.childline import PIECE, ChildLine
from services.runtime.kernel.processes import Child

_CODE = "import sys; sys.path.insert(0, {root!r}); from services.runtime.sftp.child import main; main()"
_SOURCE = str(Path(__file__).resolve().parents[3])
_START_S = 20.0


class SftpProcess(ChildLine):
    """One session."""

    async def close(self) -> None:
        self.hang_up()
        # One that waits for a file system of the guest's ends when that does; nobody else waits for it.
        waiting = asyncio.ensure_future(self._child.wait())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 1)


async def start(root: int, idmap: IdMap) -> SftpProcess:
    """Serve what lies beneath *root*, a descriptor that stays the caller's. Raises: WrongState, OSError."""
    ours, its = socket.socketpair()
    ours.setblocking(False)
    for end in (ours, its):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PIECE)
    argv = [sys.executable, "-I", "-S", "-B", "-c", _CODE.format(root=_SOURCE)]
    argv += [] if idmap.is_privileged else ["mapped"]
    with its:
        process = SftpProcess(Child(argv, stdin=its.fileno()), ours)
    try:
        socket.send_fds(ours, [b"r"], [root])
        if not idmap.is_privileged:
            await asyncio.wait_for(_map(process, ours, idmap), _START_S)
    except BaseException:
        await process.close()
        raise
    return process


async def _map(process: SftpProcess, line: socket.socket, idmap: IdMap) -> None:
    loop, pid = asyncio.get_running_loop(), process.pid
    if await loop.sock_recv(line, 1) != b"u":
        raise WrongState("NO_SFTP", "The SFTP server did not start; try again")
    _write_maps(pid, idmap)
    await loop.sock_sendall(line, b"g")


def _write_maps(pid: int, idmap: IdMap) -> None:
    for name, ranges in (("uid_map", idmap.uids), ("gid_map", idmap.gids)):
        Path(f"/proc/{pid}/{name}").write_text(_table(ranges))


def _table(ranges: tuple[Range, ...]) -> str:
    return "".join(f"{r.inside} {r.host} {r.count}\n" for r in ranges)
