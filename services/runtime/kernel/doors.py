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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.settings import USER
from services.runtime.devices import inside
from services.runtime.kernel import mountapi
from services.runtime.kernel.patience import Patience
from services.runtime.kernel.processes import open_guest
from services.runtime.ports import GUEST_FOLDER, Guest

_DEADLINE_S = 20.0


class GuestDoors:
    """Implements ports.Doors below <state>/guests."""

    def __init__(self, state_dir: Path, user: str = USER) -> None:
        self._root = state_dir / "guests"
        self._user = user
        self._patience = Patience(deadline_s=_DEADLINE_S, most=1)

    def ensure(self, id: str, group: int) -> Path:
        """Return the folder to be mounted inside. It appears whole, by one rename."""
        door, new = self._root / id, self._root / f".{id}.new"
        if not door.exists():
            shutil.rmtree(new, ignore_errors=True)
            _make(new, self._user, group)
            new.rename(door)
        return door / "lxd"

    async def plug(self, guest: Guest) -> None:
        await self._patience.call(guest.id, self._plug, guest)

    async def unplug(self, guest: Guest) -> None:
        await self._patience.call(guest.id, self._unplug, guest)

    def _plug(self, guest: Guest) -> None:
        folder = self.ensure(guest.id, guest.idmap.root[1])
        with self._entered(guest) as process:
            if process is None or inside.is_attached(process, GUEST_FOLDER, _identity(folder)):
                return
            tree = mountapi.open_tree(folder)
            try:
                mountapi.set_attributes(tree, read_only=True, propagation="private")
                inside.attach(process, guest.idmap.root, tree, GUEST_FOLDER)
            finally:
                os.close(tree)

    def _unplug(self, guest: Guest) -> None:
        folder = self._root / guest.id / "lxd"
        if folder.exists():
            with self._entered(guest) as process:
                if process is not None:
                    inside.detach(process, GUEST_FOLDER, _identity(folder))
            self.remove(guest.id)

    @contextmanager
    def _entered(self, guest: Guest) -> Iterator[int | None]:
        """Give a descriptor of its /proc folder; None when it has ended, and whoever watches it cleans up."""
        try:
            process = open_guest(guest.pid, guest.id, guest.idmap)
        except (FileNotFoundError, ProcessLookupError):
            yield None
            return
        try:
            yield process
        finally:
            os.close(process)

    def remove(self, id: str) -> None:
        door, old = self._root / id, self._root / f".{id}.old"
        shutil.rmtree(old, ignore_errors=True)
        with suppress(FileNotFoundError):
            door.rename(old)
        shutil.rmtree(old, ignore_errors=True)

    def known(self) -> set[str]:
        return {path.name for path in self._root.iterdir() if not path.name.startswith(".")}


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


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
