"""Generate the gRPC stubs beside their .proto files. Skips what is newer than its source.

Stubs are never committed: generated code must not be newer than the protobuf runtime that loads it,
so the pinned compiler in the same environment makes them. `--force` makes them anew.
"""

from __future__ import annotations

import os
import sys
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def stubs_of(proto: Path) -> list[Path]:
    stem = proto.with_suffix("")
    return [Path(f"{stem}{end}") for end in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")]


def is_stale(proto: Path) -> bool:
    made = stubs_of(proto)
    return not all(p.exists() and p.stat().st_mtime >= proto.stat().st_mtime for p in made)


def protos() -> list[Path]:
    return sorted((ROOT / "protos").rglob("*.proto"))


def generate(files: list[Path]) -> int:
    from grpc_tools import protoc

    # The mypy plugins are console scripts of the same environment.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    outs = [f"--{kind}={ROOT}" for kind in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")]
    include = resources.files("grpc_tools") / "_proto"
    names = [str(p.relative_to(ROOT)) for p in files]
    return int(protoc.main(["protoc", f"-I{ROOT}", f"-I{include}", *outs, *names]))


def main() -> int:
    force = "--force" in sys.argv[1:]
    every = protos()
    # A message file may be imported by others, so one stale file regenerates all.
    if not force and not any(is_stale(p) for p in every):
        return 0
    return generate(every)


if __name__ == "__main__":
    raise SystemExit(main())
