"""Blobs in a folder: staging/ID/PART, blobs/FINGERPRINT[.metadata|.rootfs], squashfs/FINGERPRINT.squashfs."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

from services.image.blobs.hashes import hash_of
from services.image.ports import SQUASHFS


class FileBlobs:
    """Implements ports.Blobs below *root*. Fingerprints are checked hex before they get here."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for name in ("staging", "blobs", "squashfs"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def staging(self, id: str) -> Path:
        folder = self._root / "staging" / id
        folder.mkdir(exist_ok=True)
        return folder

    def drop_staging(self, id: str) -> None:
        shutil.rmtree(self._root / "staging" / id, ignore_errors=True)

    def staged(self) -> list[str]:
        return [path.name for path in (self._root / "staging").iterdir()]

    def keep(self, id: str, fingerprint: str, *, split: bool) -> None:
        folder = self._root / "staging" / id
        for part in ("metadata", "rootfs") if split else ("unified",):
            source = folder / part
            _move(source, self.part(fingerprint, part))
        _move(folder / "made.squashfs", self.squashfs(fingerprint))
        for name in ("blobs", "squashfs"):
            _sync(self._root / name)

    def keep_base(self, id: str, fingerprint: str) -> None:
        _move(self._root / "staging" / id / "made.squashfs", self.squashfs(fingerprint))
        _sync(self._root / "squashfs")

    def part(self, fingerprint: str, part: str) -> Path:
        suffix = "" if part == "unified" else f".{part}"
        return self._root / "blobs" / f"{fingerprint}{suffix}"

    def sha256(self, fingerprint: str, part: str) -> str:
        if part == "unified":
            return fingerprint
        return hash_of(self.squashfs(fingerprint) if part == SQUASHFS else self.part(fingerprint, part))

    def hash_of(self, path: Path) -> str:
        return hash_of(path)

    def squashfs(self, fingerprint: str) -> Path:
        return self._root / "squashfs" / f"{fingerprint}.squashfs"

    def fingerprints(self) -> set[str]:
        names = [*(self._root / "blobs").iterdir(), *(self._root / "squashfs").iterdir()]
        return {path.name.split(".", 1)[0] for path in names}

    def put_aside(self) -> None:
        """Take all files out of sight, to be brought back one by one."""
        for folder in ("blobs", "squashfs"):
            for path in (self._root / folder).iterdir():
                path.rename(self._aside(folder) / path.name)

    def bring_back(self, fingerprint: str) -> None:
        """Put back what was put aside of an image, if it was."""
        parts = [self.part(fingerprint, part) for part in ("unified", "metadata", "rootfs")]
        for path in (*parts, self.squashfs(fingerprint)):
            aside = self._aside(path.parent.name) / path.name
            if aside.exists() and not path.exists():
                aside.rename(path)

    def drop_aside(self, older_than_s: float) -> None:
        """Remove what was put aside long ago."""
        for path in (self._root / "aside").glob("*/*"):
            if path.stat().st_ctime < time.time() - older_than_s:
                path.unlink(missing_ok=True)

    def _aside(self, folder: str) -> Path:
        aside = self._root / "aside" / folder
        aside.mkdir(parents=True, exist_ok=True)
        return aside

    def discard(self, fingerprint: str, id: str) -> None:
        folder = self.staging(id)
        files = [self.part(fingerprint, part) for part in ("unified", "metadata", "rootfs")]
        for path in (*files, self.squashfs(fingerprint)):
            with contextlib.suppress(FileNotFoundError):
                path.rename(folder / path.name)


def _move(source: Path, target: Path) -> None:
    """Put a file in its place, durably: the record that names it is committed next."""
    if source.exists():
        _sync(source)
        source.rename(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
