"""Ways to compress archives: a closed table, so that no request chooses a program or its arguments.

LXD takes any program of its host with arguments here, which has been a way to root (CVE-2026-28384,
CVE-2026-48755). A level is a number; everything else is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.errors import Invalid

# Name -> extension and the highest level.
_KNOWN = {
    "none": ("", 0),
    "gzip": (".gz", 9),
    "pigz": (".gz", 9),
    "bzip2": (".bz2", 9),
    "xz": (".xz", 9),
    "lzma": (".lzma", 9),
    "zstd": (".zst", 19),
    "lz4": (".lz4", 12),
    "squashfs": (".squashfs", 0),
}
_TEXT = re.compile(r"([a-z0-9]{2,8})(?: +-([0-9]{1,2}))?")


@dataclass(frozen=True)
class Compression:
    """level 0: the program's own choice."""

    name: str
    level: int = 0

    def argv(self) -> list[str]:
        """Return the program that compresses its stdin to its stdout; none for "none".

        Raises: Invalid for squashfs, which is no stream.
        """
        level = [f"-{self.level}"] if self.level else []
        match self.name:
            case "none":
                return []
            case "gzip" | "pigz":
                # igzip knows levels up to 3, and does them ten times as fast as others.
                if self.level <= 3:
                    return ["igzip", "-c", "-n", "-T", "2", f"-{self.level or 1}"]
                return ["pigz", "-c", "-n", *level]
            case "xz" | "lzma":
                return ["xz", "-c", "-T2", f"--format={self.name}", *(level or ["-1"])]
            case "zstd":
                return ["zstd", "-c", "-q", "-T2", *level]
            case "bzip2" | "lz4":
                return [self.name, "-c", *level]
        raise _bad(self.name)

    @property
    def extension(self) -> str:
        """Return what follows the name of a tarball."""
        return _KNOWN[self.name][0]


def parse_compression(text: str) -> Compression:
    """Return what *text* ("gzip", "zstd -3") asks for. Raises: Invalid, in LXD's words."""
    found = _TEXT.fullmatch(text.strip())
    if not found or found[1] not in _KNOWN or int(found[2] or 0) > _KNOWN[found[1]][1]:
        raise _bad(text)
    return Compression(found[1], int(found[2] or 0))


def _bad(text: str) -> Invalid:
    return Invalid("BAD_COMPRESSION", f'Invalid compression algorithm "{text[:64]}"', about="compression")
