"""What the use cases need from disk and programs. Implemented by blobs/ and formats/."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

PARTS = ("unified", "metadata", "rootfs")


class Blobs(Protocol):
    """Files of images, by fingerprint. Everything may be repeated."""

    def staging(self, id: str) -> Path:
        """Return the folder of an upload, made if absent."""
        ...

    def drop_staging(self, id: str) -> None: ...

    def staged(self) -> list[str]: ...

    def keep(self, id: str, fingerprint: str, *, split: bool) -> None:
        """Move an upload's files to where the fingerprint says. Survives repeating."""
        ...

    def part(self, fingerprint: str, part: str) -> Path: ...

    def squashfs(self, fingerprint: str) -> Path: ...

    def fingerprints(self) -> set[str]: ...

    def remove(self, fingerprint: str) -> None: ...


class Converter(Protocol):
    """Archives of strangers to a squashfs of ours, outside root and within bounds."""

    async def convert(self, source: Path, target: Path) -> None:
        """Raises: Invalid when *source* is no archive we can read, or exceeds the bounds."""
        ...

    async def read(self, squashfs: Path, name: str, limit: int) -> bytes:
        """Return a regular file. Raises: Invalid when it is absent, something else or larger."""
        ...

    async def is_directory(self, squashfs: Path, name: str) -> bool: ...
