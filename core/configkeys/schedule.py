"""Schedules as people write them: cron's five fields, or @hourly and its like, several joined by ", ".

Pure. Sentences are LXD's, and those of the cron library that LXD uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

FORM = "Schedule must be of the form: <minute> <hour> <day-of-month> <month> <day-of-week>"
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@annually": "0 0 1 1 *",
    "@yearly": "0 0 1 1 *",
}
_WORDS = ("@startup", "@never")
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_CALENDAR = "jan feb mar apr may jun jul aug sep oct nov dec", "sun mon tue wed thu fri sat"
_MONTHS = {name: i for i, name in enumerate(_CALENDAR[0].split(), 1)}
_DAYS = {name: i for i, name in enumerate(_CALENDAR[1].split())}
_NAMES: tuple[dict[str, int], ...] = ({}, {}, {}, _MONTHS, _DAYS)


@dataclass(frozen=True)
class Cron:
    """The minutes at which something is due. Where both days are restricted, either is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool = False


def parse_schedule(text: str) -> tuple[Cron | str, ...]:
    """Return the parts of a schedule; "@startup" and "@never" stay words. Raises: ValueError."""
    return tuple(_part(part.strip().lower()) for part in text.split(", "))


def _part(text: str) -> Cron | str:
    if text in _WORDS:
        return text
    fields = _ALIASES.get(text, text).split()
    if len(fields) != len(_BOUNDS):
        raise ValueError(FORM)
    minutes, hours, days, months, weekdays = (
        _field(field, *bounds, names) for field, bounds, names in zip(fields, _BOUNDS, _NAMES, strict=True)
    )
    either_day = not any(fields[i].startswith("*") for i in (2, 4))
    return Cron(minutes, hours, days, months, weekdays, either_day)


def _field(text: str, first: int, last: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        found |= _range(part, first, last, names)
    return frozenset(found)


def _range(text: str, first: int, last: int, names: dict[str, int]) -> set[int]:
    span, slash, step_text = text.partition("/")
    step = _number(step_text, {}) if slash else 1
    start_text, dash, end_text = span.partition("-")
    if span in ("*", "?"):
        start, end = first, last
    else:
        start = _number(start_text, names)
        end = _number(end_text, names) if dash else (last if slash else start)
    if start < first:
        raise ValueError(
            f"Error parsing schedule: beginning of range ({start}) below minimum ({first}): {text}"
        )
    if end > last:
        raise ValueError(f"Error parsing schedule: end of range ({end}) above maximum ({last}): {text}")
    if start > end:
        raise ValueError(
            f"Error parsing schedule: beginning of range ({start}) beyond end of range ({end}): {text}"
        )
    if step < 1:
        raise ValueError(f"Error parsing schedule: step of range should be a positive number: {text}")
    return set(range(start, end + 1, step))


def _number(text: str, names: dict[str, int]) -> int:
    if text in names:
        return names[text]
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        why = f'strconv.Atoi: parsing "{text[:32]}": invalid syntax'
        raise ValueError(f"Error parsing schedule: failed to parse int from {text[:32]}: {why}")
    return int(text)


def is_due(schedule: tuple[Cron | str, ...], at: datetime) -> bool:
    """Say whether one of the parts names the minute of *at*."""
    return any(_names(part, at) for part in schedule if isinstance(part, Cron))


def _names(cron: Cron, at: datetime) -> bool:
    if at.minute not in cron.minutes or at.hour not in cron.hours or at.month not in cron.months:
        return False
    is_day, is_weekday = at.day in cron.days, at.isoweekday() % 7 in cron.weekdays
    return (is_day or is_weekday) if cron.either_day else (is_day and is_weekday)
