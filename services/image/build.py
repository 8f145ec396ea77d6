"""Build a Debian image from the machine's configured package mirror, as root, before any service runs.

    python -m services.image.build debian 12 --output debian-12.tar.gz

The result is an ordinary unified image and enters Podium by the ordinary upload. Builds are cached
by their recipe. A running image service builds the same without root: see sources/mmdebstrap.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from core.errors import PodiumError
from services.image.sources.recipe import Recipe, recipe_of

_CACHE = Path("/var/cache/podium/images")
_LIMIT_S = 1800


def build(release: str, output: Path, packages: tuple[str, ...] = ()) -> None:
    """Write the image to *output*, from the cache when the recipe was built before."""
    recipe = recipe_of("debian", release, packages)
    _CACHE.mkdir(parents=True, exist_ok=True)
    cached = _CACHE / f"debian-{recipe.release}-{recipe.id}.tar.gz"
    if not cached.exists():
        with tempfile.TemporaryDirectory(prefix="build-", dir=_CACHE) as work:
            made = _build_in(Path(work), recipe)
            made.rename(cached)
    output.unlink(missing_ok=True)
    shutil.copyfile(cached, output)


def _build_in(work: Path, recipe: Recipe) -> Path:
    recipe.prepare(work)
    argv = recipe.argv(work, str(work / "rootfs"), mode="root")
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=_LIMIT_S)
    (work / "metadata.yaml").write_bytes(recipe.metadata(time.time()))
    made = work / "image.tar.gz"
    with made.open("wb") as target:
        tar = subprocess.Popen(
            ["tar", "-C", str(work), "--numeric-owner", "--xattrs", "-cf", "-", "metadata.yaml", "rootfs"],
            stdout=subprocess.PIPE,
        )
        subprocess.run(["pigz", "-6"], stdin=tar.stdout, stdout=target, check=True, timeout=600)
        if tar.wait():
            raise RuntimeError("tar failed")
    return made


def main() -> int:
    parser = argparse.ArgumentParser(prog="services.image.build")
    parser.add_argument("distribution", choices=["debian"])
    parser.add_argument("release")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--package", action="append", default=[])
    args = parser.parse_args()
    if os.geteuid():
        print("Building an image needs root; run it with sudo.", file=sys.stderr)
        return 1
    try:
        build(args.release, args.output, tuple(args.package))
    except PodiumError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
