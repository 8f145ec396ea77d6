"""What is plugged into an instance, on disk beside it: written before a device is plugged, removed after.

So whatever a killed process left can be told and taken away; nothing has to be remembered.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from urllib.parse import quote, unquote

from core.state import codec
from services.runtime.domain.devices.plan import DevicePlan

_PLAN, _BEGUN, _PLACES, _TOLD = "plan", "begun", "places", "told"


class Ledger:
    """The folder <state>/instances/ID/devices, with one folder per device."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, plan: DevicePlan) -> Path:
        """Note that *plan* will be plugged now, and return the device's folder, which is empty."""
        folder = self.folder(plan.device)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        (folder / _BEGUN).write_bytes(codec.encode(plan))
        return folder

    def done(self, device: str) -> None:
        """Note that it is plugged as a whole."""
        folder = self.folder(device)
        os.rename(folder / _BEGUN, folder / _PLAN)

    def note(self, device: str, path: str, identity: tuple[int, int]) -> None:
        """Note device and inode of what will be at *path*: its source may be gone when it is taken out."""
        with (self.folder(device) / _PLACES).open("a") as file:
            file.write(json.dumps([path, *identity]) + "\n")

    def places(self, device: str) -> dict[str, tuple[int, int]]:
        """Return device and inode by path, as noted."""
        found = {}
        with contextlib.suppress(OSError, ValueError):
            for line in (self.folder(device) / _PLACES).read_text().splitlines():
                path, dev, inode = json.loads(line)
                found[path] = (dev, inode)
        return found

    def tell(self, device: str, events: list[dict[str, str]]) -> None:
        """Note what the guest is told of: when the device is pulled out, the host knows it no more."""
        (self.folder(device) / _TOLD).write_text(json.dumps(events))

    def told(self, device: str) -> list[dict[str, str]]:
        """Return what the guest was told of."""
        try:
            found: list[dict[str, str]] = json.loads((self.folder(device) / _TOLD).read_text())
        except (OSError, ValueError):
            return []
        return found

    def forget(self, device: str) -> None:
        shutil.rmtree(self.folder(device), ignore_errors=True)

    def whole(self) -> dict[str, DevicePlan]:
        """Return what is plugged as a whole."""
        return self._read(_PLAN)

    def half(self) -> dict[str, DevicePlan]:
        """Return what was begun and not finished."""
        return self._read(_BEGUN)

    def folder(self, device: str) -> Path:
        # Names may hold slashes and dots; "" and ".." cannot come of this.
        return self._folder / ("d." + quote(device, safe=""))

    def _read(self, name: str) -> dict[str, DevicePlan]:
        found = {}
        for path in sorted(self._folder.glob(f"d.*/{name}")):
            device = unquote(path.parent.name.removeprefix("d."))
            try:
                found[device] = codec.decode(DevicePlan, path.read_bytes())
            except ValueError:  # cut off by a crash of the host, when nothing is plugged any more
                found[device] = DevicePlan(device)
        return found
