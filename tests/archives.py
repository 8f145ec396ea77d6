"""Backups made by hand, honest and hostile ones: what LXD's hold, as small as can be."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

Entry = bytes | str | None
"""Content of a file; "-> target" for a link; None for a folder."""


def entry(name: str, **changes: Any) -> dict[str, Any]:
    """What index.yaml says of an instance or a snapshot."""
    return {
        "name": name,
        "architecture": "x86_64",
        "config": {},
        "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}},
        "profiles": ["default"],
        "ephemeral": False,
        "created_at": "2026-01-02T03:04:05Z",
        **changes,
    }


def index(name: str = "came", snapshots: tuple[dict[str, Any], ...] = (), **changes: Any) -> dict[str, Any]:
    """An index; *changes* are of the instance. JSON is YAML."""
    return {
        "name": name,
        "backend": "dir",
        "pool": "default",
        "type": "container",
        "optimized": False,
        "snapshots": [snapshot["name"] for snapshot in snapshots],
        "config": {"container": entry(name, **changes), "snapshots": list(snapshots)},
    }


def archive(about: dict[str, Any] | bytes, *, uid: int = 0, **more: Entry) -> bytes:
    """A backup with a root for the instance and each snapshot that *about* tells of. *more*: by path."""
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    names = [] if isinstance(about, bytes) else about.get("snapshots") or []
    entries: dict[str, Entry] = {"backup": None, "backup/index.yaml": text, "backup/container": None}
    for name in ("container", *(f"snapshots/{snapshot}" for snapshot in names)):
        entries[f"backup/{name}/rootfs"] = None
        entries[f"backup/{name}/rootfs/etc"] = None
    return tarball(entries | more, uid=uid)


def tarball(entries: dict[str, Entry], *, uid: int = 0) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in entries.items():
            info = tarfile.TarInfo(path)
            info.mode, info.uid, info.gid = 0o755, uid, uid
            if content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content.removeprefix("-> ")
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
