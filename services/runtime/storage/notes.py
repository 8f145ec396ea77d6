"""What is recorded of the volumes of a pool, noted in the pool, a file each: so it explains itself.

Outside the volumes, so that a full one cannot keep its note from being written, and a guest cannot see it.
A note is as a whole or not at all. What is read may come from another host: it is bounded, and no link is
followed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from core.files import replace_file

FOLDER = "notes"
_MOST = 4 << 20
_END = ".json"


def read_all(pool: Path) -> dict[str, dict[str, Any]]:
    """Return the notes by name; what is no JSON object is left out. Blocks."""
    found = {}
    for name in names(pool):
        note = read(pool, name)
        if isinstance(note, dict):
            found[name] = note
    return found


def names(pool: Path) -> list[str]:
    try:
        listed = os.listdir(pool / FOLDER)
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(_END) for name in listed if name.endswith(_END))


def read(pool: Path, name: str) -> Any:
    """Return a note, None when there is none that can be read. Blocks."""
    with suppress(OSError, ValueError):
        fd = os.open(_path(pool, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return orjson.loads(file.read(_MOST))
    return None


def write(pool: Path, name: str, note: dict[str, Any]) -> None:
    """Replace a note, unless it says the same. Raises: OSError. Blocks."""
    if read(pool, name) == note:
        return
    (pool / FOLDER).mkdir(mode=0o700, exist_ok=True)
    # Not durable: what a crash of the host cuts off is written again at the next start, of the records.
    replace_file(_path(pool, name), orjson.dumps(note, option=orjson.OPT_INDENT_2), mode=0o600)


def remove(pool: Path, name: str) -> None:
    with suppress(FileNotFoundError):
        _path(pool, name).unlink()


def _path(pool: Path, name: str) -> Path:
    return pool / FOLDER / f"{name}{_END}"
