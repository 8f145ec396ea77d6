"""Put files behind those of a tarball, between two programs of a build.

    python -m services.image.sources.appender FILES.tar <tarball >tarball

So files of a recipe are part of the archive only: nothing is written into a tree whose links could
lead elsewhere. Of two entries with one name the later one counts.
"""

from __future__ import annotations

import os
import shutil
import sys

from services.image.formats.scanner import Limits, TarScanner

_CHUNK = 1 << 20


def main() -> int:
    scanner, source = TarScanner(Limits(), lambda: Limits.tree_bytes), sys.stdin.buffer
    with open(sys.argv[1], "rb") as files, os.fdopen(1, "wb") as target:
        passed = 0
        while chunk := source.read(_CHUNK):
            if not scanner.ended:
                scanner.feed(chunk)
                target.write(chunk[: scanner.ended_at - passed] if scanner.ended else chunk)
                passed += len(chunk)
        scanner.finish()
        shutil.copyfileobj(files, target, _CHUNK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
