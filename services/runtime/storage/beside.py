"""What an instance has beside its root: one file in its volume, so that whatever copies the volume copies it.

Absent until something was changed: until then it is as the image has it. Only root can reach the folder.
"""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from pathlib import Path

import orjson

from services.runtime.usecases.peers import About

_NAME = "about.json"
_MOST = 16 << 20


def read(volume: Path) -> About | None:
    """Return what the instance has of its own; None for nothing. Raises: OSError, ValueError. Blocks."""
    try:
        fd = os.open(volume / _NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        found = orjson.loads(file.read(_MOST))
    templates = {name: base64.b64decode(text) for name, text in found["templates"].items()}
    return About(found["metadata"], templates)


def write(volume: Path, about: About) -> None:
    """Replace it, as a whole or not at all. Raises: OSError. Blocks."""
    templates = {name: base64.b64encode(text).decode() for name, text in about.templates.items()}
    data = orjson.dumps({"metadata": about.metadata, "templates": templates})
    new = volume / f"{_NAME}.new"
    with suppress(FileNotFoundError):
        new.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(volume / _NAME)
