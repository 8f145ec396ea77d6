"""Folders as archives: tar, and what compresses it or makes a squashfs of it, as programs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence

from core.compression import Compression
from core.descriptors import big_pipe
from core.errors import WrongState
from services.runtime.kernel.processes import Child

_SAID = 400
# One file that changes while it is read is no failure; the guest may be running.
_CHANGED = 1
_MOST_CPU_S, _MOST_MEMORY = 600, 4 << 30


async def pack_tar(tree: int, names: Sequence[str], compression: Compression, target: int) -> None:
    """Write *names* of folder *tree* into descriptor *target*; a cancelled call leaves no program.

    Raises: WrongState.
    """
    await _run(tree, _tar(names), compression.argv(), target)


async def pack_squashfs(tree: int, target: int) -> None:
    """Make the content of folder *tree* a squashfs in file *target*. Raises: WrongState."""
    path = f"/proc/{os.getpid()}/fd/{target}"
    # Not by a program that reads the folder itself: that of squashfs-tools-ng loses hard links.
    # It goes through all blocks of a sparse file, and guests make those as large as they like.
    writer = ["prlimit", f"--cpu={_MOST_CPU_S}", f"--as={_MOST_MEMORY}", "--"]
    writer += ["tar2sqfs", "-q", "-f", "-c", "zstd", "-X", "level=1", "-j", "2", path]
    await _run(tree, _tar(["."]), writer, subprocess.DEVNULL)


def _tar(names: Sequence[str]) -> list[str]:
    options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--sparse", "--format=posix"]
    # Else times of access and the number of this process would make each archive another one.
    options.append("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime")
    return ["tar", *options, "--warning=no-file-ignored", "-cf", "-", "--", *names]


async def _run(tree: int, argv: list[str], writer: list[str], target: int) -> None:
    """Run *argv* in folder *tree*, and what it writes through *writer* if there is one, into *target*."""
    said, children = os.memfd_create("said"), []
    place = f"/proc/{os.getpid()}/fd/{tree}"
    try:
        if writer:
            read, write = big_pipe()
            try:
                children.append(Child(argv, stdout=write, stderr=said, cwd=place))
                children.append(Child(writer, stdin=read, stdout=target, stderr=said))
            finally:
                os.close(read)
                os.close(write)
        else:
            children.append(Child(argv, stdout=target, stderr=said, cwd=place))
        codes = await asyncio.gather(*(child.wait() for child in children))
    finally:
        for child in children:
            child.kill()
        words = os.pread(said, _SAID, 0).decode(errors="replace").strip()
        os.close(said)
    if codes[0] not in (0, _CHANGED) or any(codes[1:]):
        raise WrongState("PACK_FAILED", f"The archive could not be made: {words or _why(codes)}")


def _why(codes: Sequence[int]) -> str:
    if any(code < 0 or code > 128 for code in codes):
        return "it took too much time or memory; are there files of absurd sizes in it?"
    return f"the programs ended with {', '.join(map(str, codes))}"
