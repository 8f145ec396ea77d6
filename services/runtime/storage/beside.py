"""What an instance has beside its root: one file in its volume, so that whatever copies the volume copies it.

Absent until something was changed: until then it is as the image has it. Only root can reach the folder.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import orjson

from core.files import replace_file
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
    replace_file(volume / _NAME, data, mode=0o600, durable=True)
