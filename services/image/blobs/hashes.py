"""The hash of a file that never changes, kept as an attribute of it, so that it goes where the file goes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path

_NAME = "user.podium.sha256"
_HEX = re.compile(rb"[0-9a-f]{64}")


def hash_of(path: Path) -> str:
    """Return the hex SHA-256. Where the file system keeps no attributes it is worked out each time.

    Raises: FileNotFoundError.
    """
    with path.open("rb") as file:
        with contextlib.suppress(OSError):
            kept = os.getxattr(file.fileno(), _NAME)
            if _HEX.fullmatch(kept):
                return kept.decode()
        found = hashlib.file_digest(file, "sha256").hexdigest()
        with contextlib.suppress(OSError):
            os.setxattr(file.fileno(), _NAME, found.encode())
    return found
