"""What an instance is after its profiles were applied. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from core.records import Instance, Profile


@dataclass(frozen=True)
class Expanded:
    """Keys and devices after profiles; devices of type none removed what they name."""

    config: dict[str, str]
    devices: dict[str, dict[str, str]]


def expand(profiles: Iterable[Profile], instance: Instance) -> Expanded:
    """Apply profiles in order, then the instance's own; a later device replaces an earlier one whole."""
    config: dict[str, str] = {}
    devices: dict[str, dict[str, str]] = {}
    layers: list[Profile | Instance] = [*profiles, instance]
    for layer in layers:
        config |= layer.config
        devices |= {name: dict(options) for name, options in layer.devices.items()}
    return Expanded(config, devices)
