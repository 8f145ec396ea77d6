"""What rules of projects are about: an instance after its profiles, a profile, a volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.records import Volume

Devices = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Subject:
    """kind: container or profile."""

    kind: str
    name: str
    config: Mapping[str, str]
    devices: Devices


@dataclass(frozen=True)
class Held:
    """What a project holds: its instances after their profiles, and its custom volumes."""

    containers: tuple[Subject, ...] = ()
    volumes: tuple[Volume, ...] = ()
