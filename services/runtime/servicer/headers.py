"""Offers and answers as the headers that LXD and Podium send each other, and back.

Headers come from strangers: nothing of one is believed but its shape, within bounds.
"""

from __future__ import annotations

from typing import Any

import orjson
from google.protobuf.message import DecodeError

from core.errors import Invalid, Unsupported
from protos.podium.migration.v1 import migration_pb2 as pb
from services.runtime.domain.arrivals import ArrivedEntry
from services.runtime.domain.offers import FEATURES, Answer, Offer

FORM = "archive-1"
_RSYNC = 0
# Far from the numbers that LXD gives its own ways.
_ARCHIVE = 77
_NO_CRIU = 2
_MOST_BYTES, _MOST_SNAPSHOTS = 4 << 20, 1000
_MOST_SHIFT = 1 << 31
_EXACT, _IDMAP = "exact", "volatile.last_state.idmap"
_KNOWN = ("xattrs", "delete", "compress", "bidirectional")
# Source: shared/osarch of LXD.
_ARCHITECTURES = {"i686": 1, "x86_64": 2, "armv7l": 3, "aarch64": 4}


def header_of_offer(offer: Offer) -> bytes:
    header = _header(offer.features, offer.snapshots)
    header.fs, header.podium = _RSYNC, FORM
    return bytes(header.SerializeToString())


def header_of_answer(answer: Answer) -> bytes:
    if answer.archive:
        return bytes(pb.MigrationHeader(fs=_ARCHIVE, podium=FORM).SerializeToString())
    header = _header(answer.features, answer.snapshots)
    header.fs = _RSYNC
    if answer.refresh:
        header.refresh = True
    return bytes(header.SerializeToString())


def _header(features: frozenset[str], snapshots: tuple[ArrivedEntry, ...]) -> Any:
    header = pb.MigrationHeader(exact=_EXACT in features)
    header.rsync.SetInParent()
    for name in _KNOWN:
        setattr(header.rsync, name, name in features)
    for entry in snapshots:
        header.snapshot_names.append(entry.name)
        header.snapshots.append(_snapshot(entry))
    return header


def _snapshot(entry: ArrivedEntry) -> pb.MigratedSnapshot:
    return pb.MigratedSnapshot(
        name=entry.name,
        config=[pb.Setting(key=key, value=value) for key, value in entry.config.items()],
        profiles=entry.profiles,
        ephemeral=entry.ephemeral,
        devices=[
            pb.SnapshotDevice(name=name, options=[pb.Setting(key=k, value=v) for k, v in options.items()])
            for name, options in entry.devices.items()
        ],
        architecture=_ARCHITECTURES.get(entry.architecture, 0),
        stateful=False,
        created_at=int(entry.created_at),
        last_used_at=int(entry.last_used_at),
        expires_at=int(entry.expires_at),
    )


def offer_of(raw: bytes) -> Offer:
    """Raises: Invalid, Unsupported."""
    header = _parsed(raw)
    return Offer(
        has_archive=header.podium == FORM,
        # LXD falls back to rsync whatever its disks could do better.
        by_rsync=header.HasField("fs") and header.HasField("rsync"),
        is_live=header.HasField("criu") and header.criu != _NO_CRIU,
        features=_features(header),
        shift=_shift(header),
        snapshots=_snapshots(header),
    )


def answer_of(raw: bytes) -> Answer:
    """Raises: Invalid."""
    header = _parsed(raw)
    return Answer(
        archive=header.podium == FORM,
        by_rsync=header.HasField("fs") and header.fs == _RSYNC,
        features=_features(header),
        refresh=header.refresh,
        snapshots=_snapshots(header),
    )


def _parsed(raw: bytes) -> pb.MigrationHeader:
    header = pb.MigrationHeader()
    if len(raw) > _MOST_BYTES:
        raise Invalid("BAD_HEADER", "The other server sent a header that is too long")
    try:
        header.ParseFromString(raw)
    except DecodeError:
        raise Invalid("BAD_HEADER", "The other server said what nobody understands") from None
    if max(len(header.snapshots), len(header.snapshot_names)) > _MOST_SNAPSHOTS:
        raise Invalid("BAD_HEADER", f"The other server has more than {_MOST_SNAPSHOTS} snapshots")
    return header


def _features(header: pb.MigrationHeader) -> frozenset[str]:
    found = {name for name in _KNOWN if getattr(header.rsync, name)}
    return frozenset(found | ({_EXACT} if header.exact else set())) & FEATURES


def _snapshots(header: pb.MigrationHeader) -> tuple[ArrivedEntry, ...]:
    """Return those that are named, in that order. Raises: Invalid."""
    told = {snapshot.name: snapshot for snapshot in header.snapshots}
    names, shift = list(header.snapshot_names), _shift(header)
    if len(set(names)) != len(names) or not set(names) <= set(told):
        raise Invalid("BAD_HEADER", "The other server does not describe each of its snapshots once")
    return tuple(_entry(told[name], shift) for name in names)


def _entry(snapshot: pb.MigratedSnapshot, shift: int) -> ArrivedEntry:
    names = {number: name for name, number in _ARCHITECTURES.items()}
    config = {setting.key: setting.value for setting in snapshot.config}
    return ArrivedEntry(
        name=snapshot.name,
        base_dir="",
        # LXD shifts a disk when its instance starts; a snapshot stays as it was.
        shift=_shift_of(config[_IDMAP]) if config.get(_IDMAP) else shift,
        architecture=names.get(snapshot.architecture, ""),
        ephemeral=snapshot.ephemeral,
        profiles=tuple(snapshot.profiles),
        config=config,
        devices={
            device.name: {option.key: option.value for option in device.options}
            for device in snapshot.devices
        },
        created_at=_time(snapshot.created_at),
        last_used_at=_time(snapshot.last_used_at),
        expires_at=_time(snapshot.expires_at),
    )


def _time(seconds: int) -> float:
    """Return unix seconds; 0.0 for what LXD calls never, which is before 1970, and for what is no time."""
    return float(seconds) if 0 < seconds < 1 << 37 else 0.0


def _shift(header: pb.MigrationHeader) -> int:
    """Return what the source adds to each id on its disk. Raises: Unsupported."""
    return _even({r.host - r.inside for r in header.idmap if r.count})


def _shift_of(text: str) -> int:
    """Return the same of what LXD notes of an instance's disk. Raises: Unsupported, Invalid."""
    try:
        return _even({entry["Hostid"] - entry["Nsid"] for entry in orjson.loads(text)})
    except (ValueError, TypeError, KeyError):
        raise Invalid("BAD_HEADER", f"The other server sent {_IDMAP} that is not usable") from None


def _even(shifts: set[int]) -> int:
    shift = shifts.pop() if shifts else 0
    if shifts or not isinstance(shift, int) or not 0 <= shift < _MOST_SHIFT:
        why = "The disk of the source has ids that are shifted unevenly; move it by lxc export and lxc import"
        raise Unsupported("BAD_IDMAP", why)
    return shift
