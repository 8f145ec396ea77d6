"""Names and life of snapshots, and what of an instance they hold. Pure.

Patterns are those of LXD: "%d" is the number after the highest so far, and {{ creation_date }} may be
written with a layout of Go's time package. No other template is rendered, so there is no engine to attack.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from core.configkeys.devices.disk import is_root
from core.errors import Invalid
from core.records import Instance, Snapshot
from core.units import parse_expiry

_MAX_NAME = 255
_TEMPLATE = re.compile(r"{{\s*creation_date\s*(?:\|\s*date:\s*(?:'([^']*)'|\"([^\"]*)\")\s*)?}}")
# Go's reference time is Mon Jan 2 15:04:05 MST 2006. Longer words first, as Go reads them.
_LAYOUT = {
    "January": "%B", "Jan": "%b", "Monday": "%A", "Mon": "%a", "MST": "%Z", "2006": "%Y", "-0700": "%z",
    "01": "%m", "02": "%d", "03": "%I", "04": "%M", "05": "%S", "06": "%y", "15": "%H", "PM": "%p",
    "_2": "%e", "1": "%-m", "2": "%-d", "3": "%-I", "4": "%-M", "5": "%-S",
}  # fmt: skip
_WORDS = re.compile("|".join(re.escape(word) for word in _LAYOUT))
_KEPT = ("volatile.base_image", "volatile.uuid")
_MONTHS = {"m": 1, "y": 12}


def snapshot_name(name: str) -> str:
    """Raises: Invalid."""
    why = ""
    if "/" in name or any(c.isspace() for c in name):
        why = "Cannot contain space or / characters"
    elif not name or name in (".", "..") or len(name) > _MAX_NAME or not name.isprintable():
        why = f"It must have 1-{_MAX_NAME} printable characters"
    if why:
        raise Invalid("BAD_NAME", f"Invalid instance snapshot name: {why}", about=name[:64])
    return name


def next_name(pattern: str, taken: Collection[str], now: datetime) -> str:
    """Return the name of a snapshot that was given none. Raises: Invalid."""
    text = _rendered(pattern, now)
    if text.count("%d") > 1:
        raise Invalid("BAD_PATTERN", "Snapshot pattern may contain '%d' only once", about="snapshots.pattern")
    if "%d" not in text:
        if text not in taken:
            return text
        text += "-%d"
    before, _, after = text.partition("%d")
    numbered = re.compile(rf"{re.escape(before)}([0-9]{{1,18}}){re.escape(after)}")
    found = [int(match[1]) for name in taken if (match := numbered.fullmatch(name))]
    return f"{before}{max(found, default=-1) + 1}{after}"


def _rendered(pattern: str, now: datetime) -> str:
    def date(match: re.Match[str]) -> str:
        layout = match[1] or match[2] or "2006-01-02 15:04:05"
        return _WORDS.sub(lambda word: now.strftime(_LAYOUT[word[0]]), layout)

    text = _TEMPLATE.sub(date, pattern)
    if "{{" in text or "{%" in text:
        raise Invalid(
            "BAD_PATTERN",
            f"snapshots.pattern {pattern[:64]!r} cannot be rendered: use %d or "
            "{{ creation_date|date:'2006-01-02_15-04-05' }}",
            about="snapshots.pattern",
        )
    return text


def expiry(text: str, now: datetime) -> datetime | None:
    """Return when something made at *now* expires: months and years as in the calendar. None: never."""
    if not text.strip():
        return None
    parse_expiry(text)
    at = now
    for part in text.split():
        count, unit = int(part[:-1]), part[-1]
        at = _months_later(at, count * _MONTHS[unit]) if unit in _MONTHS else at + _time(count, unit)
    return at


def _time(count: int, unit: str) -> timedelta:
    return timedelta(seconds=parse_expiry(f"{count}{unit}"))


def _months_later(at: datetime, months: int) -> datetime:
    """Like Go's AddDate: the 31st of a month with 30 days is the 1st of the next."""
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    days = calendar.monthrange(year, month + 1)[1]
    beyond = max(at.day - days, 0)
    return at.replace(year=year, month=month + 1, day=min(at.day, days)) + timedelta(days=beyond)


def of_copy(snapshot: Snapshot, instance: Instance, id: str) -> Snapshot:
    """Return the record of a copy of *snapshot* that belongs to *instance*, itself a copy. Not whole yet.

    MAC addresses stay with the original; a restore keeps those that the copy has.
    """
    return replace(
        snapshot,
        id=id,
        instance_id=instance.id,
        instance=of_owner(snapshot.instance, instance),
        volatile={k: v for k, v in snapshot.volatile.items() if k in _KEPT},
        status="Pending",
    )


def of_owner(was: Instance, instance: Instance) -> Instance:
    """Return what a snapshot says of its instance once that is *instance*: where it lies, and who it is."""
    devices = {
        name: {**device, "pool": instance.pool} if is_root(device) else dict(device)
        for name, device in was.devices.items()
    }
    return replace(
        was,
        id=instance.id,
        project=instance.project,
        member=instance.member,
        pool=instance.pool,
        idmap_base=instance.idmap_base,
        idmap_size=instance.idmap_size,
        idmap_raw=instance.idmap_raw,
        devices=devices,
    )


def of_now(snapshot: Snapshot, instance: Instance) -> Instance:
    """Return what *snapshot* says of its *instance*, with the profiles which that has now: as in LXD.

    So a profile that was renamed, or given up and deleted, is missed by no snapshot.
    """
    return replace(snapshot.instance, profiles=instance.profiles)


def restored(instance: Instance, snapshot: Snapshot) -> Instance:
    """Return *instance* with the specification that *snapshot* kept; what it is stays."""
    was = of_now(snapshot, instance)
    return replace(
        instance,
        description=was.description,
        architecture=was.architecture,
        ephemeral=was.ephemeral,
        profiles=was.profiles,
        config=was.config,
        devices=was.devices,
        image=was.image,
        base_dir=was.base_dir,
        base_shift=was.base_shift,
    )
