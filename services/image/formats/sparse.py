"""Put the pieces of sparse files where a squashfs wants them: in whole blocks, one behind the other."""

from __future__ import annotations

import os

from services.image.formats.scanner import INLINE
from services.image.formats.squashwriter import BLOCK_SIZE, RAW
from services.image.formats.tarheaders import BLOCK, Segments, bad, check_segments, padded, sparse_pairs
from services.image.formats.tree import Node

_MAP_MAX = 16 << 20


class Expander:
    """Appends to a file that holds the archive. end: where the next block goes."""

    def __init__(self, file: int, end: int) -> None:
        self._file = file
        self.end = end

    def expand(self, node: Node) -> list[int]:
        """Write the blocks of *node*, which then begin at node.at; return their sizes. Raises: Invalid."""
        segments, source = self._segments(node)
        check_segments(segments, stored=node.stored - (source - node.at), real=node.size)
        node.at, sizes = self.end, [0] * -(-node.size // BLOCK_SIZE)
        held, number = bytearray(), -1
        for offset, length in segments:
            while length:
                if number != offset // BLOCK_SIZE:
                    self._append(sizes, number, held)
                    number = offset // BLOCK_SIZE
                    held = bytearray(min(BLOCK_SIZE, node.size - number * BLOCK_SIZE))
                within = offset % BLOCK_SIZE
                step = min(length, BLOCK_SIZE - within)
                held[within : within + step] = self._read(source, step)
                source, offset, length = source + step, offset + step, length - step
        self._append(sizes, number, held)
        return sizes

    def _append(self, sizes: list[int], number: int, block: bytearray) -> None:
        if number < 0:
            return
        sizes[number] = len(block) | RAW
        rest = memoryview(block)
        while rest:
            written = os.pwrite(self._file, rest, self.end)
            rest, self.end = rest[written:], self.end + written

    def _read(self, at: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = os.pread(self._file, size - len(data), at + len(data))
            if not more:
                raise bad("it ends in the middle of an entry")
            data += more
        return data

    def _segments(self, node: Node) -> tuple[Segments, int]:
        """Return the segments, and where their bytes begin."""
        if node.sparse is not INLINE:
            return node.sparse or (), node.at
        most = min(node.stored, _MAP_MAX)
        text = self._read(node.at, min(most, BLOCK))
        while True:
            count, *values = text.split(b"\n")[:-1] or [b"x"]
            wanted = 2 * int(count) if count.isdigit() and len(count) < 9 else -1
            if wanted < 0 or (len(values) < wanted and len(text) == most):
                raise bad("a sparse file has a map that is none")
            if len(values) >= wanted:
                break
            text = self._read(node.at, min(most, 2 * len(text)))
        length = len(b"\n".join([count, *values[:wanted]])) + 1
        return sparse_pairs(values[:wanted]), node.at + padded(length)
