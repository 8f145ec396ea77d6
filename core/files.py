"""Small files that are replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace_file(path: Path, data: str | bytes, *, mode: int = 0o644, durable: bool = False) -> None:
    """Make *path* hold *data*: whoever reads it meets what it held before, or this. Blocks.

    What lies at the name that is written first is removed and never followed, so the folder may be one
    that others write to. durable: on the disk when this returns. Raises: OSError.
    """
    new = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        os.fchmod(fd, mode)
        if durable:
            file.flush()
            os.fsync(fd)
    new.rename(path)
