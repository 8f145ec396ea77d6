"""The two ends of rsync as LXD's migrations use them, each in a jail: the other end may be anybody.

Source: lxd/rsync/rsync.go of LXD 5.0.2 for the options that both ends must agree on; rsync(1).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence

from core.errors import Unavailable
from services.runtime.kernel.childline import ChildLine
from services.runtime.kernel.jail import DATA, beside, jailed
from services.runtime.kernel.processes import Child

FEATURES = ("xattrs", "delete", "compress", "bidirectional")
EXACT = "exact"
_ARGS = {
    "xattrs": ["--xattrs", "--filter=-x security.selinux"],
    "delete": ["--delete"],
    "compress": ["--compress", "--compress-level=2"],
    EXACT: ["--hard-links", "--acls"],
}
_COMMON = ["--numeric-ids", "--devices", "--partial", "--sparse"]
_READS = ("dac_read_search",)
_WRITES = ("chown", "dac_override", "fowner", "fsetid", "mknod", "setfcap")
# A sender talks through what it takes for a shell on another host: here that leads to its own line.
# Neither is the first process in its jail: rsync would wait for signals there that never come.
# Devices get their mode as they are made: changing it would need /proc, which is not there.
_OPEN = ["sh", "-c", 'ulimit -v 1048576; ulimit -n 64; umask 0; "$0" "$@"; exit $?']
_KEPT = 'ulimit -v 1048576; ulimit -n 64; exec 3<&0 4>&1 1>&2; "$0" "$@"; exit $?'
_LINE = 'sh -c "exec 5<&0; cat <&5 >&4 & exec cat <&3" --'
_SAID = 2000
_OK, _VANISHED = 0, 24
_STALL_S = 120


class Rsync(ChildLine):
    """A running end: what it says is to be read, what the other says to be written."""

    def __init__(self, argv: list[str], jail: int) -> None:
        self._jail = jail
        self._said = os.memfd_create("said")
        line, its = socket.socketpair()
        line.setblocking(False)
        environment = {"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8"}
        with its:
            end = its.fileno()
            child = Child(argv, stdin=end, stdout=end, stderr=self._said, env=environment)
        super().__init__(child, line)

    async def write(self, data: bytes) -> None:
        """What comes after its end is lost; wait() tells how that was."""
        with contextlib.suppress(OSError):
            await super().write(data)

    async def wait(self) -> None:
        """Raises: Unavailable when it did not do all."""
        code = await self._child.wait()
        if code not in (_OK, _VANISHED):
            said = os.pread(self._said, _SAID, 0).decode(errors="replace").strip()
            why = " ".join(said.split())[:300] or f"rsync ended with {code}"
            raise Unavailable("RSYNC_FAILED", f"The files could not be transferred: {why}")

    def beside(self) -> dict[str, bytes]:
        """Return metadata.yaml and templates/NAME that came beside a root. Raises: LimitReached. Blocks."""
        return beside(self._jail)

    async def close(self) -> None:
        self.hang_up()
        await asyncio.shield(self._child.wait())
        os.close(self._said)


def receiver(jail: int, folder: str, features: Sequence[str]) -> Rsync:
    """Begin to receive into *folder* of the jail's data, "" for all of it."""
    # The letters are those that LXD's own receiver is started with.
    argv = [
        *_OPEN,
        "rsync",
        "--server",
        "-vlogDtpre.iLsfx",
        *_COMMON,
        "--modify-window=-1",
        f"--timeout={_STALL_S}",
    ]
    return Rsync(jailed(jail, _WRITES, [*argv, *_args(features), ".", _place(folder)]), jail)


def sender(jail: int, folder: str, features: Sequence[str], bound: str = "") -> Rsync:
    """Begin to send *folder* of the jail's data, "" for all of it; *bound*: see wire.Transit."""
    bounds = [f"--bwlimit={bound}"] if bound else []
    argv = ["sh", "-c", _KEPT, "rsync", "-ar", *_COMMON, f"--timeout={_STALL_S}", *bounds, *_args(features)]
    return Rsync(jailed(jail, _READS, [*argv, _place(folder), "there:/", "-e", _LINE]), jail)


def _args(features: Sequence[str]) -> list[str]:
    return [arg for feature in features for arg in _ARGS.get(feature, ())]


def _place(folder: str) -> str:
    return f"/{DATA}/{folder}/" if folder else f"/{DATA}/"
