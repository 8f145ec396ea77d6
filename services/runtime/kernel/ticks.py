"""When the schedules were last looked at, over restarts of the service and of the host."""

from __future__ import annotations

from pathlib import Path

from core.files import replace_file


class TickMarker:
    """Implements ports.Ticks by a file in a folder of root's."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "engine" / "last-tick"

    def last(self) -> float:
        try:
            return float(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return 0.0

    def seen(self, at: float) -> None:
        replace_file(self._path, f"{at:.0f}")
