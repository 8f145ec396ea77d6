"""What a project may hold: counts, and sums over all instances and volumes. Pure; the words are LXD's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.configkeys.project import SUMS
from core.errors import Invalid, LimitReached, PodiumError
from core.policy.subjects import Devices, Held, Subject
from core.records import Project, Volume
from core.units import parse_bytes

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_COUNTED = {"limits.instances": "instances", "limits.containers": "containers"}


def check(project: Project, held: Held, *, is_new: bool) -> None:
    """Check that *project* may hold what *held* says. *is_new*: one of the containers is to be made.

    Raises: LimitReached, Invalid.
    """
    if is_new:
        _check_counts(project, len(held.containers))
    keys = [key for key in SUMS if project.config.get(key)]
    if not keys:
        return
    try:
        found = sums(project.name, keys, held)
    except PodiumError as exc:
        raise Invalid(
            exc.reason, f"Failed getting usage of project entities: {exc.message}", about=exc.about
        ) from None
    for key in keys:
        if found[key] > parse(key, project.config[key]):
            value = project.config[key]
            raise LimitReached(
                "SUM_REACHED",
                f'Reached maximum aggregate value "{value}" for "{key}" in project "{project.name}"',
                about=project.name,
            )


def _check_counts(project: Project, count: int) -> None:
    if (limit := project.config.get("limits.containers")) and count > int(limit):
        raise LimitReached(
            "COUNT_REACHED",
            f'Reached maximum number of instances of type "container" in project "{project.name}"',
            about=project.name,
        )
    if (limit := project.config.get("limits.instances")) and count > int(limit):
        raise LimitReached(
            "COUNT_REACHED",
            f'Reached maximum number of instances in project "{project.name}"',
            about=project.name,
        )


def check_change(old: Project, new: Project, held: Held) -> None:
    """Check that what a project holds fits its new limits. Raises: LimitReached, Invalid."""
    changed = [k for k in (*_COUNTED, *SUMS) if new.config.get(k) and new.config[k] != old.config.get(k)]
    count = len(held.containers)
    if "limits.instances" in changed and int(new.config["limits.instances"]) < count:
        raise LimitReached(
            "TOO_LOW",
            f'Can\'t change limits.instances in project "{new.name}": "limits.instances" is too low: '
            f'there currently are {count} total instances in project "{new.name}"',
        )
    if "limits.containers" in changed and int(new.config["limits.containers"]) < count:
        raise LimitReached(
            "TOO_LOW",
            f'Can\'t change "limits.containers" in project "{new.name}": "limits.containers" is too low: '
            f'there currently are {count} instances of type container in project "{new.name}"',
        )
    keys = [key for key in changed if key in SUMS]
    found = sums(new.name, keys, held)
    for key in keys:
        if parse(key, new.config[key]) < found[key]:
            raise LimitReached(
                "TOO_LOW", f'"{key}" is too low: current total is "{_shown(key, found[key])}"', about=key
            )


def sums(project: str, keys: Iterable[str], held: Held) -> dict[str, int]:
    """Add up *keys* over what a project holds. Raises: Invalid where something has no such bound."""
    found = dict.fromkeys(keys, 0)
    for key in found:
        if key == "limits.disk":
            found[key] += sum(_volume(project, volume) for volume in held.volumes)
        found[key] += sum(_of(project, key, subject) for subject in held.containers)
    return found


def usage(held: Held) -> dict[str, int]:
    """Add up everything, leaving out what has no bound."""
    found = dict.fromkeys(SUMS, 0)
    for key in SUMS:
        texts = [_text(key, subject) for subject in held.containers]
        texts += [v.config.get("size", "") for v in held.volumes] if key == "limits.disk" else []
        for text in texts:
            try:
                found[key] += parse(key, text) if text else 0
            except ValueError:
                continue
    return found


def parse(key: str, value: str) -> int:
    """Return a bound that can be added up. Raises: ValueError for shares and CPU sets."""
    return int(value) if key in ("limits.cpu", "limits.processes") else parse_bytes(value)


def _volume(project: str, volume: Volume) -> int:
    if size := volume.config.get("size"):
        return parse("limits.disk", size)
    said = f'Custom volume "{volume.name}" in project "{project}" has no "size" config set'
    raise Invalid("NO_BOUND", said, about=volume.name)


def _of(project: str, key: str, subject: Subject) -> int:
    where = f'instance "{subject.name}" in project "{project}"'
    if key == "limits.disk" and (count := len(_roots(subject.devices))) != 1:
        why = "More than one root device found" if count else "No root device could be found"
        raise Invalid("NO_BOUND", f"Failed getting root disk device for {where}: {why}", about=subject.name)
    value = _text(key, subject)
    if not value:
        what = f'"{key}" config, either directly or via a profile'
        if key == "limits.disk":
            what = '"size" config set on the root device either directly or via a profile'
        raise Invalid("NO_BOUND", f"I{where[1:]} has no {what}", about=subject.name)
    try:
        return parse(key, value)
    except ValueError:
        raise Invalid("NO_BOUND", f'Failed parsing "{key}" for {where}', about=subject.name) from None


def _text(key: str, subject: Subject) -> str:
    if key != "limits.disk":
        return subject.config.get(key, "")
    return next((root.get("size", "") for root in _roots(subject.devices)), "")


def _roots(devices: Devices) -> list[Mapping[str, str]]:
    return [d for d in devices.values() if d.get("type") == "disk" and d.get("path") == "/" and d.get("pool")]


def _shown(key: str, value: int) -> str:
    return str(value) if key in ("limits.cpu", "limits.processes") else _bytes(value)


def _bytes(value: int) -> str:
    if value < 1024:
        return f"{value}B"
    power = min((value.bit_length() - 1) // 10, len(_UNITS))
    return f"{value / 1024**power:.1f}{_UNITS[power - 1]}"
