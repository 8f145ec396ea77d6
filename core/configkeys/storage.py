"""Keys of storage pools and volumes, by driver, and the check with the sentences LXD's users know.

Source: LXD 5.0's storage documentation; the keys of drivers that this host cannot run are known all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from core.configkeys.schedule import parse_schedule
from core.configkeys.schema import lines, one_of, text
from core.configkeys.values import parse_snapshot_expiry
from core.errors import Invalid
from core.units import parse_bool, parse_bytes, parse_int

Parser = Callable[[str], object]
CUSTOM = "custom"


def _volume_schedule(value: str) -> object:
    """Instances may say @never, to have no schedule of a profile; volumes have none to be free of."""
    if value == "@never":
        raise ValueError("Schedule must be of the form: <minute> <hour> <day-of-month> <month> <day-of-week>")
    return parse_schedule(value)


_RSYNC: dict[str, Parser] = {"rsync.bwlimit": parse_bytes, "rsync.compression": parse_bool}
_POOL: dict[str, dict[str, Parser]] = {
    "dir": _RSYNC,
    "btrfs": {"size": parse_bytes, "btrfs.mount_options": text},
    "zfs": {
        "size": parse_bytes,
        "zfs.pool_name": text,
        "zfs.clone_copy": one_of("true", "false"),
        "zfs.export": parse_bool,
        "volume.zfs.use_refquota": parse_bool,
    },
    "lvm": {
        "size": parse_bytes,
        "lvm.vg_name": text,
        "lvm.thinpool_name": text,
        "volume.block.filesystem": one_of("ext4", "xfs"),
    },
    "ceph": {
        "ceph.cluster_name": text,
        "ceph.user.name": text,
        "ceph.osd.pool_name": text,
        "ceph.osd.pg_num": parse_int,
        "ceph.rbd.clone_copy": parse_bool,
        "ceph.rbd.features": text,
        "volume.block.filesystem": one_of("ext4", "xfs"),
    },
    "cephfs": {
        "cephfs.cluster_name": text,
        "cephfs.user.name": text,
        "cephfs.path": text,
        "cephfs.fscache": parse_bool,
    },
}
_EVERY_POOL: dict[str, Parser] = {"source": text, "volatile.initial_source": text}
_VOLUME: dict[str, Parser] = {
    "size": parse_bytes,
    "snapshots.expiry": parse_snapshot_expiry,
    "snapshots.schedule": _volume_schedule,
    "snapshots.pattern": text,
    "security.shifted": parse_bool,
    "security.unmapped": parse_bool,
}


def check_pool(driver: str, config: Mapping[str, str]) -> None:
    """Check the keys of a pool; an empty value unsets a key, which must be known. Raises: Invalid."""
    for key, value in config.items():
        if (parse := _pool_parser(driver, key)) is None:
            raise Invalid("UNKNOWN_KEY", f'Invalid option "{key[:80]}"', about=key[:80])
        _check(parse, value, f'option "{key}"', key)


def check_volume(driver: str, config: Mapping[str, str], *, name: str) -> None:
    """Check the keys of a custom volume; *name* is how LXD calls it in errors. Raises: Invalid."""
    for key, value in config.items():
        if (parse := _volume_parser(driver, key)) is None:
            raise Invalid(
                "UNKNOWN_KEY", f'Invalid option for volume "{name}" option "{key[:80]}"', about=key[:80]
            )
        _check(parse, value, f'volume "{name}" option "{key}"', key)


def volume_defaults(driver: str, pool: Mapping[str, str]) -> dict[str, str]:
    """Return what the volume.* keys of a pool give a new custom volume."""
    own = {key.removeprefix("volume."): value for key, value in pool.items() if key.startswith("volume.")}
    return {key: value for key, value in own.items() if _volume_parser(driver, key)}


def _pool_parser(driver: str, key: str) -> Parser | None:
    if key.startswith("user."):
        return lines
    if key.startswith("volume."):
        own = key.removeprefix("volume.")
        if parse := _VOLUME.get(own):
            return parse
    return _EVERY_POOL.get(key) or _POOL.get(driver, {}).get(key)


def _volume_parser(driver: str, key: str) -> Parser | None:
    if key.startswith("user."):
        return lines
    if key in ("volatile.idmap.last", "volatile.idmap.next"):
        return text  # LXD's record of what it chowned; a volume here never is
    return _VOLUME.get(key)


def _check(parse: Parser, value: str, what: str, key: str) -> None:
    try:
        text(key)
        if value:
            parse(value)
    except ValueError as exc:
        raise Invalid("BAD_VALUE", f"Invalid value for {what}: {exc}", about=key) from None
