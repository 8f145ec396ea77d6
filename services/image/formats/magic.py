"""Recognise archives by their first bytes. Pure."""

from __future__ import annotations

_MAGIC = (
    (b"\x1f\x8b", "gz"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"BZh", "bz2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x5d\x00\x00", "lzma"),
    (b"hsqs", "squashfs"),
)
_DECOMPRESS = {
    # Three times as fast as gzip and pigz.
    "gz": ("igzip", "-dc"),
    "xz": ("xz", "-dc", "-T0", "--no-sparse"),
    "zst": ("zstd", "-dcq", "--no-sparse"),
    "bz2": ("bzip2", "-dc"),
    "lz4": ("lz4", "-dcq", "--no-sparse"),
    "lzma": ("xz", "-dc", "--format=lzma", "--no-sparse"),
}


def kind_of(head: bytes) -> str:
    """Return gz, xz, zst, bz2, lz4, lzma, squashfs, tar, or an empty string for none of them."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return "tar" if head[257:262] == b"ustar" else ""


def decompressor(kind: str) -> tuple[str, ...]:
    """Return the program that turns *kind* on its stdin into a tar on its stdout, which may be a file."""
    return _DECOMPRESS[kind]


def extension(head: bytes) -> str:
    """Return the file name extension of an artefact that begins with *head*."""
    kind = kind_of(head)
    if kind in ("squashfs", "tar"):
        return f".{kind}"
    return f".tar.{kind}" if kind else ""
