"""What a guest is told when its configuration or its devices change. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from core.configkeys.guest import of_guest
from core.policy.expansion import Expanded

# What changes on a device that stays plugged in, as LXD tells it; anything else is out and in again.
_LIVE = {
    "nic": ("limits.", "ipv4.", "ipv6.", "security.", "queue."),
    "disk": ("limits.", "size"),
}


@dataclass(frozen=True)
class ConfigChange:
    key: str
    old_value: str
    value: str


@dataclass(frozen=True)
class DeviceChange:
    """action: added, removed or updated."""

    action: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hook:
    """What is about to happen, told before it does. action: stopping."""

    action: str


Change = ConfigChange | DeviceChange | Hook


def changes(before: Expanded, after: Expanded) -> list[Change]:
    """Return what a guest may know of the way from *before* to *after*, in the order it happened."""
    return [*_keys(before.config, after.config), *_devices(before.devices, after.devices)]


def _keys(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for key in sorted({*before, *after}):
        old, new = before.get(key, ""), after.get(key, "")
        if of_guest(key) and old != new:
            yield ConfigChange(key, old, new)


def _devices(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> Iterator[Change]:
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    live = {name for name in changed if _stays(before[name], after[name])}
    replaced = changed - live
    for name in sorted((before.keys() - after.keys()) | replaced):
        yield DeviceChange("removed", name, before[name])
    for name in sorted((after.keys() - before.keys()) | replaced):
        yield DeviceChange("added", name, after[name])
    for name in sorted(live):
        yield DeviceChange("updated", name, after[name])


def _stays(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    live = _LIVE.get(after.get("type", ""), ())
    differ = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    return bool(live) and all(key.startswith(live) for key in differ)
