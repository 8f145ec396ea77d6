"""`make compose-image`: make the context of the image that compose.yaml builds. Needs no registry.

The base is a Debian 12 root file system from the machine's configured package mirror, cached by its
recipe; the Python packages are those of this environment, which the lock file pins by hash.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.host import copy_app, wanted_packages
from deploy.privileges import ROOT
from services.image.sources.recipe import write_sources

CONTEXT = ROOT / "build" / "compose"
_CACHE = Path("/var/cache/podium/compose")
_RELEASE = "bookworm"
# What the host needs of deploy/packages.txt, but no container does; and the other way round.
_HOST_ONLY = {"mmdebstrap", "lxd-client"}
_MORE = ("curl", "prometheus", "python3")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/fonts/*")


def packages() -> list[str]:
    return sorted({*wanted_packages(), *_MORE} - _HOST_ONLY)


def base() -> Path:
    """Return the base as a tar.gz, from the cache when it was built before."""
    recipe = hashlib.sha256(repr((_RELEASE, packages(), _LEFT_OUT)).encode()).hexdigest()[:16]
    cached = _CACHE / f"base-{recipe}.tar.gz"
    _CACHE.mkdir(parents=True, exist_ok=True)
    if not cached.exists():
        with tempfile.TemporaryDirectory(prefix="build-", dir=_CACHE) as work:
            _build(Path(work)).rename(cached)
    return cached


def _build(work: Path) -> Path:
    write_sources(work / "sources.list", "debian", _RELEASE)
    argv = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(packages())}"]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    argv += [_RELEASE, str(work / "base.tar"), str(work / "sources.list")]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=1800)
    subprocess.run(["pigz", "-3", str(work / "base.tar")], check=True, timeout=600)
    return work / "base.tar.gz"


def stage() -> None:
    """Fill CONTEXT, which is rebuilt each time; only the base is kept."""
    shutil.rmtree(CONTEXT, ignore_errors=True)
    CONTEXT.mkdir(parents=True)
    copy_app(CONTEXT / "app")
    shutil.copyfile(base(), CONTEXT / "base.tar.gz")


def main() -> int:
    if os.geteuid():
        print("Building an image needs root; run it with sudo.", file=sys.stderr)
        return 1
    stage()
    print(f"==> {CONTEXT.relative_to(ROOT)} is ready; next: docker-compose up -d --build")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
