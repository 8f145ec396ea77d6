"""Whether the host was booted since the runtime last had its instances in order."""

from __future__ import annotations

from pathlib import Path

from core.files import replace_file

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class BootMarker:
    """Implements ports.Boots by a file that holds the id of the boot it was written in.

    It lies in a folder of root's: in run/, user podium could lay a link in its way.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "engine" / "boot-id"

    def is_new(self) -> bool:
        try:
            return self._path.read_text(errors="replace") != _BOOT_ID.read_text()
        except FileNotFoundError:
            return True

    def seen(self) -> None:
        replace_file(self._path, _BOOT_ID.read_text())

    def forget(self) -> None:
        """Make the next start the first one of this boot."""
        self._path.unlink(missing_ok=True)
