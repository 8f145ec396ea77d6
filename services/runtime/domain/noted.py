"""What a pool's notes say of it and of its volumes, as data. Pure.

A note holds whole records, so that recover can write them again; see usecases/notes.py, pools/recover.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from core.errors import Invalid
from core.names import is_fingerprint, volume_snapshot_name
from core.records import Instance, Pool, Snapshot, Volume, VolumeSnapshot
from services.runtime.domain.snapshots import snapshot_name

POOL, INSTANCE, VOLUME = "pool", "instance", "volume"
_FORMAT = 1
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Note:
    """kind says which of the records it is about; snapshots are of the same kind."""

    kind: str = ""
    pool: Pool = field(default_factory=Pool)
    instance: Instance = field(default_factory=Instance)
    volatile: dict[str, str] = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()
    volume: Volume = field(default_factory=Volume)
    volume_snapshots: tuple[VolumeSnapshot, ...] = ()
    format: int = _FORMAT

    @property
    def ids(self) -> set[str]:
        """The ids of the volumes that it tells of."""
        own = self.instance.id if self.kind == INSTANCE else self.volume.id
        return {own, *(s.id for s in self.snapshots), *(s.id for s in self.volume_snapshots)} - {""}


def of_pool(pool: Pool) -> dict[str, Any]:
    return _plain({"kind": POOL, "pool": pool})


def of_instance(
    instance: Instance, volatile: Mapping[str, str], snapshots: Iterable[Snapshot]
) -> dict[str, Any]:
    kept = [snapshot for snapshot in snapshots if snapshot.status == "Created"]
    return _plain({"kind": INSTANCE, "instance": instance, "volatile": dict(volatile), "snapshots": kept})


def of_volume(volume: Volume, snapshots: Iterable[VolumeSnapshot]) -> dict[str, Any]:
    kept = [snapshot for snapshot in snapshots if snapshot.status == "Created"]
    return _plain({"kind": VOLUME, "volume": volume, "volume_snapshots": kept})


def _plain(note: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins({**note, "format": _FORMAT})
    return plain


def parse(plain: Mapping[str, Any]) -> Note | None:
    """Return a note; None for what is none, or of a newer format, or names what could lead elsewhere."""
    try:
        note = msgspec.convert(dict(plain), Note)
    except ValueError:
        return None
    is_ours = note.format == _FORMAT and note.kind in (POOL, INSTANCE, VOLUME)
    return note if is_ours and all(_ID.fullmatch(id) for id in note.ids) and _leads_nowhere(note) else None


def _leads_nowhere(note: Note) -> bool:
    """Say whether what becomes a part of keys and paths can be one."""
    images = {note.instance.image, *(s.instance.image for s in note.snapshots)} - {""}
    try:
        for snapshot in note.snapshots:
            snapshot_name(snapshot.name)
        for one in note.volume_snapshots:
            volume_snapshot_name(one.name)
    except Invalid:
        return False
    return all(is_fingerprint(image) for image in images)
