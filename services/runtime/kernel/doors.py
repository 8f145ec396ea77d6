"""The folder of each running guest that holds its end of the guest API. Made here, served by the gateway.

    guests/ID/        0710 podium:ROOT OF THE GUEST; no other user of the host may pass
    guests/ID/lxd/    0755, mounted at /dev/lxd inside, read-only
    guests/ID/lxd/sock

The folder is mounted, not the socket: whoever serves it may be replaced while the guest runs. Until the
gateway has put its own socket there, one without a listener holds the place: cloud-init decides in
the first moment of a boot whether there is a guest API, by whether the socket exists.
"""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from core.settings import USER


class GuestDoors:
    """Implements ports.Doors below <state>/guests."""

    def __init__(self, state_dir: Path, user: str = USER) -> None:
        self._root = state_dir / "guests"
        self._user = user

    def ensure(self, id: str, group: int) -> Path:
        """Return the folder to be mounted inside. It appears whole, by one rename."""
        door, new = self._root / id, self._root / f".{id}.new"
        if not door.exists():
            shutil.rmtree(new, ignore_errors=True)
            _make(new, self._user, group)
            new.rename(door)
        return door / "lxd"

    def remove(self, id: str) -> None:
        door, old = self._root / id, self._root / f".{id}.old"
        shutil.rmtree(old, ignore_errors=True)
        with suppress(FileNotFoundError):
            door.rename(old)
        shutil.rmtree(old, ignore_errors=True)

    def known(self) -> set[str]:
        return {path.name for path in self._root.iterdir() if not path.name.startswith(".")}


def _make(door: Path, user: str, group: int) -> None:
    inner = door / "lxd"
    inner.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(f"{inner}/sock")
    (inner / "sock").chmod(0o666)
    inner.chmod(0o755)
    shutil.chown(inner, user)
    door.chmod(0o710)
    shutil.chown(door, user)
    os.chown(door, -1, group)
