"""Make a squashfs of an archive, beside whatever else is going on: the work of layerchild.py.

The tarball itself, as it comes, becomes the data of the squashfs; behind it come the tables that tell
where each file lies in it. So nothing is copied twice or compressed, and what a stranger sent is read
by no code that could write where it should not. What a program unpacks straight into the target is read
there as it grows; without one stdin is a tarball. How far it may unpack is bounded by the size of what
was received so far. On refusal the reason is on stderr and the exit code is REFUSED.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import closing

from core.errors import Invalid
from services.image.formats.form import Form, check_form
from services.image.formats.scanner import Limits, Member, TarScanner
from services.image.formats.sparse import Expander
from services.image.formats.squashwriter import DATA_AT, SquashWriter
from services.image.formats.tree import Node, Tree

REFUSED = 65
_CHUNK = 1 << 20
_LOOK_EVERY_S = 0.002


def run(source: str, numbers: str, form: str, target: int, reader: int) -> int:
    """Do it; *reader* is the process that unpacks, 0 for none; form: a Form. Returns the exit code."""
    limits = Limits(*map(int, numbers.split(",")))
    scanner = TarScanner(limits, lambda: os.stat(source).st_size)
    try:
        with closing(_unpacked(reader, target) if reader else copied(0, target)) as pieces:
            write(scanner, pieces, target, Form(form))
    except Invalid as exc:
        print(exc.message.replace("\n", " "), file=sys.stderr)
        return REFUSED
    return 0


def write(scanner: TarScanner, pieces: Iterable[memoryview], target: int, form: Form = Form.ANY) -> None:
    """Write the tables of the tarball whose *pieces* lie in *target* as they come. Raises: Invalid."""
    tree = Tree()
    sparse: list[Node] = []

    def found(member: Member) -> None:
        member.at += DATA_AT
        node = tree.add(member)
        if member.sparse is not None:
            sparse.append(node)

    scanner.found = found
    for piece in pieces:
        scanner.feed(piece)
        # For pages just written this only starts their way to the disk, so that the final fsync is short.
        os.posix_fadvise(target, DATA_AT + scanner.passed - len(piece), len(piece), os.POSIX_FADV_DONTNEED)
    scanner.finish()
    check_form(tree, form)
    expander = Expander(target, os.lseek(target, 0, os.SEEK_END))
    sizes = {node.number: expander.expand(node) for node in sparse if node.links}
    with open(target, "r+b", buffering=_CHUNK, closefd=False) as file:
        SquashWriter(tree, sizes).write(file, expander.end)


def copied(source: int, target: int) -> Generator[memoryview, None, None]:
    """Yield what comes from *source*, then written to *target*."""
    buffer = memoryview(bytearray(_CHUNK))
    while size := os.readv(source, [buffer]):
        yield buffer[:size]
        rest = buffer[:size]
        while rest:
            rest = rest[os.write(target, rest) :]


def _unpacked(pid: int, target: int) -> Generator[memoryview, None, None]:
    """Yield what process *pid* writes to *target*. Raises: Invalid when it fails."""
    has_ended = False
    try:
        buffer, at, status = memoryview(bytearray(_CHUNK)), DATA_AT, 0
        while True:
            if size := os.preadv(target, [buffer], at):
                at += size
                yield buffer[:size]
                continue
            if has_ended:
                break
            ended, status = os.waitpid(pid, os.WNOHANG)
            has_ended = ended == pid
            if not has_ended:
                time.sleep(_LOOK_EVERY_S)
    finally:
        if not has_ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if status:
        raise Invalid("BAD_ARCHIVE", "The image is not usable: its data is damaged")
