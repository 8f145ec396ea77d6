"""`podium admin etcd`: look after the state store with the `etcd3` package, and check its snapshots."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from cli.call import Call
from cli.failure import CliError

_BOLT_MAGIC = 0xED0CDAED
_HASH = 32
_CHUNK = 1 << 20


def members(call: Call) -> None:
    _ask(lambda etcd: [{"name": m.name, "clients": list(m.client_urls)} for m in etcd.members])


def status(call: Call) -> None:
    def ask(etcd: Any) -> Any:
        s, revision = etcd.status(), etcd.get_response("podium").header.revision
        return {
            "version": s.version,
            "size_bytes": s.db_size,
            "leader": s.leader.name,
            "term": s.raft_term,
            "revision": revision,
        }

    _ask(ask)


def defrag(call: Call) -> None:
    _ask(lambda etcd: etcd.defragment() or {"defragmented": True})


def compact(call: Call) -> None:
    try:
        revision = int(call.words[0])
    except ValueError:
        raise call.misuse(f"{call.words[0]!r} is no revision", "a revision is a whole number") from None
    _ask(lambda etcd: etcd.compact(revision) or {"compacted_to": revision})


def snapshot(call: Call) -> None:
    path = Path(call.words[0])
    try:
        file = path.open("xb")
    except OSError as exc:
        raise CliError(
            "no snapshot was made", f"{path}: {exc.strerror}", "name a file that is not there yet"
        ) from exc

    def ask(etcd: Any) -> Any:
        with file:
            etcd.snapshot(file)
        return {"file": str(path), "size_bytes": path.stat().st_size}

    try:
        _ask(ask)
    except CliError:
        path.unlink()
        raise


def _ask(question: Callable[[Any], Any]) -> None:
    """Print the answer. Raises: CliError naming the endpoint."""
    import grpc

    from core.settings import Settings
    from core.state.etcd3_compat import client

    endpoint = Settings.from_env().etcd_endpoint
    try:
        print(json.dumps(question(client(endpoint)), indent=2))
    except grpc.RpcError as exc:
        # What etcd refuses reaches us as it is; that it is away, etcd3 says by classes of its own.
        why = str(exc.details()).removeprefix("etcdserver: ")
        raise CliError(f"etcd at {endpoint} refused", why, "podium admin etcd status") from exc
    except Exception as exc:
        next = "podium up, or set PODIUM_ETCD to the right host:port"
        raise CliError(f"etcd at {endpoint} did not answer", type(exc).__name__, next) from exc


def check(call: Call) -> None:
    """Prove that a snapshot is whole, and restore it into a folder that is thrown away."""
    path = Path(call.words[0])
    try:
        with path.open("rb") as file:
            digest = checked(file, path.stat().st_size)
    except OSError as exc:
        raise CliError(
            "the snapshot cannot be read", f"{path}: {exc.strerror}", "podium admin etcd snapshot FILE"
        ) from exc
    except ValueError as exc:
        raise CliError("the snapshot is not usable", str(exc), "podium admin etcd snapshot FILE") from exc
    print(
        json.dumps(
            {"file": str(path), "sha256": digest, "is_whole": True, "restored": _restored(path)}, indent=2
        )
    )


def checked(file: BinaryIO, size: int) -> str:
    """Return the hash of the database. Raises: ValueError saying what is wrong.

    Source: etcd server/storage/backend: a snapshot is a bbolt file, pages of at least 512 bytes,
    followed by its SHA-256; bbolt db.go: each of the first two pages may hold the valid meta record.
    """
    if size <= _HASH or size % 512 != _HASH:
        raise ValueError(
            f"{size} bytes are no whole number of pages and a hash: it was cut, or is no snapshot"
        )
    digest, left = hashlib.sha256(), size - _HASH
    head = b""
    while left:
        data = file.read(min(_CHUNK, left))
        head = head or data[: 1 << 16]
        digest.update(data)
        left -= len(data)
    if file.read() != digest.digest():
        raise ValueError("its hash does not fit: it was damaged after it was made")
    if int.from_bytes(head[16:20], "little") != _BOLT_MAGIC:
        raise ValueError("it holds no bbolt database")
    return digest.hexdigest()


def _restored(path: Path) -> bool | str:
    """Restore for real where etcd's own tool is there; else say what is missing."""
    tool = shutil.which("etcdutl") or shutil.which("etcdctl")
    if not tool:
        return "not tried: neither etcdutl nor etcdctl is installed (apt-get install etcd-client)"
    with tempfile.TemporaryDirectory(prefix="podium-restore-") as folder:
        argv = [tool, "snapshot", "restore", str(path), "--data-dir", f"{folder}/data"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode or not Path(folder, "data", "member", "snap", "db").is_file():
            lines = done.stderr.strip().splitlines() or ["no data folder was made"]
            raise CliError("the snapshot cannot be restored", lines[-1], "podium admin etcd snapshot FILE")
    return True
