"""What an instance that came as an archive becomes here. Pure.

The archive is a stranger's: this only translates it. Whether there may be such an instance, the policy says.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ArrivedEntry:
    """An instance or snapshot as its archive describes it; nothing of it is checked but its shape.

    base_dir: its root in the base; shift: what is added to each id there.
    """

    name: str
    base_dir: str
    shift: int = 0
    description: str = ""
    architecture: str = ""
    ephemeral: bool = False
    profiles: tuple[str, ...] = ()
    config: dict[str, str] = field(default_factory=dict)
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    created_at: float = 0.0
    last_used_at: float = 0.0
    expires_at: float = 0.0


@dataclass(frozen=True)
class Arrived:
    """An archive that was received and converted. pool: where it came from."""

    fingerprint: str
    pool: str
    instance: ArrivedEntry
    snapshots: tuple[ArrivedEntry, ...] = ()
