"""Make a squashfs of the tarball on stdin, beside whatever else is going on: a process of its own.

    python -m services.image.formats.layer SOURCE TARGET LIMITS

The tarball itself, as it comes, becomes the data of the squashfs; behind it come the tables that tell
where each file lies in it. So nothing is copied twice or compressed, and what a stranger sent is read
by no code that could write where it should not. SOURCE is the file that was received so far, whose
size bounds how far it may unpack. On refusal the reason is on stderr and the exit code is REFUSED.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from core.errors import Invalid
from services.image.formats.scanner import Limits, Member, TarScanner
from services.image.formats.sparse import Expander
from services.image.formats.squashwriter import DATA_AT, SquashWriter
from services.image.formats.tree import Node, Tree

REFUSED = 65
_CHUNK = 1 << 20


def main() -> int:
    source, target = sys.argv[1], sys.argv[2]
    limits = Limits(*map(int, sys.argv[3].split(",")))
    out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        make(0, out, limits, lambda: os.stat(source).st_size)
    except Invalid as exc:
        print(exc.message.replace("\n", " "), file=sys.stderr)
        return REFUSED
    return 0


def make(source: int, target: int, limits: Limits, received: Callable[[], int]) -> Tree:
    """Write the tarball that comes from descriptor *source*, and its tables, to *target*. Raises: Invalid."""
    tree = Tree()
    sparse: list[Node] = []

    def found(member: Member) -> None:
        member.at += DATA_AT
        node = tree.add(member)
        if member.sparse is not None:
            sparse.append(node)

    scanner = TarScanner(limits, received, found)
    os.lseek(target, DATA_AT, os.SEEK_SET)
    _copy(source, target, scanner)
    scanner.finish()
    expander = Expander(target, os.lseek(target, 0, os.SEEK_CUR))
    sizes = {node.number: expander.expand(node) for node in sparse if node.links}
    with open(target, "r+b", buffering=_CHUNK, closefd=False) as file:
        SquashWriter(tree, sizes).write(file, expander.end)
    return tree


def _copy(source: int, target: int, scanner: TarScanner) -> None:
    """Keep what the scanner lets pass; what comes behind the end is only read, since its check sum counts."""
    buffer = memoryview(bytearray(_CHUNK))
    while size := os.readv(source, [buffer]):
        has_ended = scanner.ended
        scanner.feed(buffer[:size])
        rest = buffer[: 0 if has_ended else size]
        while rest:
            rest = rest[os.write(target, rest) :]
        # For pages just written this only starts their way to the disk, so that the final fsync is short.
        end = os.lseek(target, 0, os.SEEK_CUR)
        os.posix_fadvise(target, end - size, size, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    sys.exit(main())
