"""backup/index.yaml of an instance's archive, as LXD and Podium write it. Pure.

The text comes from strangers. Here only its shape is checked; whether such an instance may exist is the
runtime's to say, as for any other. Every scalar is read as text: YAML's own types are none of our business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import yaml

from core.errors import Invalid, Unsupported
from services.image.domain.boundedyaml import load

PATH = "backup/index.yaml"
MAX_BYTES = 1 << 20
_MAX_EVENTS = 200_000
_MAX_SNAPSHOTS = 1000
_MAX_SHIFT = (1 << 32) - (1 << 17)
_IDMAP, _VOLUME_IDMAP = "volatile.last_state.idmap", "volatile.idmap.last"


@dataclass(frozen=True)
class Entry:
    """An instance or snapshot. base_dir: its root in the archive; shift: what is added to each id there."""

    name: str
    base_dir: str
    shift: int = 0
    description: str = ""
    architecture: str = ""
    ephemeral: bool = False
    stateful: bool = False
    profiles: tuple[str, ...] = ()
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    created_at: float = 0.0
    last_used_at: float = 0.0
    expires_at: float = 0.0


@dataclass(frozen=True)
class Index:
    """kind: "container", or "custom" for a volume, whose entries have a name, text, keys and a folder."""

    pool: str
    instance: Entry
    snapshots: tuple[Entry, ...] = ()
    kind: str = "container"


def bad(why: str) -> Invalid:
    return Invalid("BAD_BACKUP", f"The backup's index.yaml is not usable: {why}")


def parse(text: bytes) -> Index:
    """Raises: Invalid, Unsupported."""
    if len(text) > MAX_BYTES:
        raise bad("it is larger than 1 MiB")
    raw = _map(load(text, yaml.CBaseLoader, most_events=_MAX_EVENTS, bad=bad), "it")
    kind = _text(raw, "type") or "container"
    if kind not in ("container", "custom"):
        raise Unsupported("NO_VMS", "Only backups of containers can be imported")
    if _text(raw, "optimized") == "true":
        raise Unsupported(
            "OPTIMIZED",
            "The backup holds a storage driver's own stream, which only that driver can read; "
            "export it again without --optimized-storage",
        )
    config = _map(raw.get("config"), "config")
    if kind == "custom":
        return _volume(raw, config)
    instance = _map(config.get("container") or config.get("instance"), "config.container")
    shift = _shift(instance)
    wanted, described = _texts(raw, "snapshots"), _list(config, "snapshots")
    found = _described(wanted, described)
    return Index(
        _text(raw, "pool"),
        _entry(instance, _text(raw, "name"), "backup/container/rootfs", shift),
        tuple(_snapshot(found[name], name, shift) for name in wanted),
    )


def _described(wanted: list[str], described: list[Any]) -> dict[str, dict[str, Any]]:
    """Return what is said of each snapshot by name."""
    found = {_text(_map(entry, "a snapshot"), "name"): entry for entry in described}
    if len(wanted) > _MAX_SNAPSHOTS or len(set(wanted)) != len(wanted) or not set(wanted) <= set(found):
        raise bad("it does not describe each of its snapshots once")
    return found


def _volume(raw: dict[str, Any], config: dict[str, Any]) -> Index:
    volume = _map(config.get("volume"), "config.volume")
    if _text(volume, "content_type") not in ("", "filesystem"):
        raise Unsupported("NO_BLOCK", "Block volumes are disks of virtual machines, which Podium has not")
    wanted, shift = _texts(raw, "snapshots"), _shift(volume, _VOLUME_IDMAP)
    found = _described(wanted, _list(config, "volume_snapshots"))
    folder = "backup/volume-snapshots"
    snapshots = (_snapshot(found[name], name, shift, folder=f"{folder}/{name}") for name in wanted)
    entry = _entry(volume, _text(raw, "name"), "backup/volume", shift)
    return Index(_text(raw, "pool"), entry, tuple(snapshots), "custom")


def _snapshot(raw: dict[str, Any], name: str, shift: int, *, folder: str = "") -> Entry:
    if not name or "/" in name or name in (".", "..") or not name.isprintable() or len(name) > 255:
        raise bad(f"{name[:40]!r} is no name of a snapshot")
    own = _shift(raw)
    return _entry(raw, name, folder or f"backup/snapshots/{name}/rootfs", own if own >= 0 else shift)


def _entry(raw: dict[str, Any], name: str, base_dir: str, shift: int) -> Entry:
    return Entry(
        name=name,
        base_dir=base_dir,
        shift=max(shift, 0),
        description=_text(raw, "description"),
        architecture=_text(raw, "architecture"),
        ephemeral=_text(raw, "ephemeral") == "true",
        stateful=_text(raw, "stateful") == "true",
        profiles=tuple(_texts(raw, "profiles")),
        config=_text_map(raw.get("config"), "config"),
        devices={
            device: _text_map(options, "a device")
            for device, options in _map(raw.get("devices"), "devices").items()
        },
        created_at=_time(raw, "created_at"),
        last_used_at=_time(raw, "last_used_at"),
        expires_at=_time(raw, "expires_at"),
    )


def _map(value: Any, what: str) -> dict[str, Any]:
    if value is None or value == "":
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise bad(f"{what} is no map")
    return value


def _list(raw: dict[str, Any], field: str) -> list[Any]:
    value = raw.get(field)
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise bad(f"{field} is no list")
    return value


def _text(raw: dict[str, Any], field: str) -> str:
    value = raw.get(field, "")
    if not isinstance(value, str):
        raise bad(f"{field} is no text")
    return value


def _texts(raw: dict[str, Any], field: str) -> list[str]:
    found = _list(raw, field)
    if not all(isinstance(item, str) for item in found):
        raise bad(f"{field} is no list of texts")
    return found


def _text_map(value: Any, what: str) -> dict[str, str]:
    found = _map(value, what)
    if not all(isinstance(item, str) for item in found.values()):
        raise bad(f"{what} is no map of texts")
    return found


def _time(raw: dict[str, Any], field: str) -> float:
    """Return unix seconds; 0.0 for LXD's way to say never."""
    text = _text(raw, field)
    if not text:
        return 0.0
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise bad(f"{field} is no time") from None
    if not 1970 <= found.year < 9999:
        return 0.0
    return found.replace(tzinfo=found.tzinfo or UTC).timestamp()


def _shift(raw: dict[str, Any], key: str = _IDMAP) -> int:
    """Return what LXD added to each id on its disk; -1 where nothing is said."""
    text = _text_map(raw.get("config"), "config").get(key, "")
    if not text:
        return -1
    try:
        found = [
            entry["Hostid"] for entry in orjson.loads(text) if entry["Isuid"] is True and entry["Nsid"] == 0
        ]
    except (ValueError, TypeError, KeyError):
        raise bad(f"{_IDMAP} is not usable") from None
    shift = found[0] if found else 0
    if not isinstance(shift, int) or isinstance(shift, bool) or not 0 <= shift < _MAX_SHIFT:
        raise bad(f"{_IDMAP} is not usable")
    return shift
