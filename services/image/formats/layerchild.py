"""Make a squashfs of the archive on stdin, as a process of its own (see layer.py).

    python -m services.image.formats.layerchild SOURCE TARGET LIMITS FORM [READER...]

SOURCE is the file that was received so far, READER the program that unpacks it. That one starts first
and works while all else is loaded.
"""

from __future__ import annotations

import importlib
import os
import sys

_DATA_AT = 4096


def main() -> int:
    source, target, numbers, form, *reader = sys.argv[1:]
    out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    os.lseek(out, _DATA_AT, os.SEEK_SET)
    pid = _start(reader, out) if reader else 0
    layer = importlib.import_module("services.image.formats.layer")
    code: int = layer.run(source, numbers, form, out, pid)
    return code


def _start(reader: list[str], out: int) -> int:
    silent = (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)
    actions = [(os.POSIX_SPAWN_DUP2, out, 1), silent]
    return os.posix_spawnp(reader[0], reader, os.environ, file_actions=actions)


if __name__ == "__main__":
    sys.exit(main())
