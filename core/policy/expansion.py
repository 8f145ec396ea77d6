"""What an instance is after its profiles were applied. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.records import Instance, Profile


@dataclass(frozen=True)
class Expanded:
    """Keys and devices after profiles; devices of type none removed what they name.

    Read only: it is kept, and others have the same.
    """

    config: Mapping[str, str]
    devices: Mapping[str, Mapping[str, str]]


def expand(profiles: Iterable[Profile], instance: Instance) -> Expanded:
    """Apply profiles in order, then the instance's own; a later device replaces an earlier one whole."""
    config: dict[str, str] = {}
    devices: dict[str, Mapping[str, str]] = {}
    layers: list[Profile | Instance] = [*profiles, instance]
    for layer in layers:
        config |= layer.config
        devices |= layer.devices
    return Expanded(config, devices)
