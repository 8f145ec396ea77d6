"""What the host has: device nodes, and the vendor and product of those that have them, from sysfs."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.runtime.domain.devices.plan import HostDevice, HostNode, VolumeFolder
from services.runtime.kernel.blocks import block_of

_MOST_PARENTS = 12


class HostFacts:
    """Implements Facts; read anew with each question."""

    def __init__(self, sys: Path = Path("/sys"), dev: Path = Path("/dev")) -> None:
        self._sys = sys
        self._dev = dev

    def node(self, path: str) -> HostNode | None:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return None
        kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else "?"
        major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        return HostNode(kind, major, minor, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))

    def is_there(self, path: str) -> bool:
        return os.path.exists(path)

    def has_program(self, name: str) -> bool:
        return shutil.which(name) is not None

    def has_interface(self, name: str) -> bool:
        return (self._sys / "class" / "net" / name).exists()

    def volume(self, device: str, pool: str, name: str) -> VolumeFolder:
        raise NotImplementedError  # answered by what the use case knows before it asks

    def bound(self, source: str) -> str:
        return ""

    def block(self, path: str) -> str:
        return block_of(path)

    def devices(self) -> Sequence[HostDevice]:
        found = (self._device(folder) for kind in ("char", "block") for folder in self._listed(kind))
        return sorted((d for d in found if d), key=lambda d: d.path)

    def _listed(self, kind: str) -> Iterator[Path]:
        folder = self._sys / "dev" / kind
        yield from folder.iterdir() if folder.exists() else ()

    def _device(self, entry: Path) -> HostDevice | None:
        """Return the device whose number *entry* stands for; None without a node or the ids of a maker."""
        folder = entry.resolve()
        event = _properties(folder / "uevent")
        ids = _ids(folder)
        if "DEVNAME" not in event or ids is None:
            return None
        path = str(self._dev / event["DEVNAME"])
        node = self.node(path)
        if node is None:
            return None
        subsystem = (folder / "subsystem").resolve().name
        return HostDevice(subsystem, *ids, path, node, _pci(folder))


def _properties(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _ids(folder: Path) -> tuple[str, str] | None:
    """Return vendor and product of the nearest parent that has them: of the USB or the PCI device."""
    for parent in (folder, *folder.parents[:_MOST_PARENTS]):
        for vendor, product in (("idVendor", "idProduct"), ("vendor", "device")):
            try:
                pair = (parent / vendor).read_text(), (parent / product).read_text()
            except OSError:
                continue
            return _hex(pair[0]), _hex(pair[1])
    return None


def _hex(text: str) -> str:
    return text.strip().removeprefix("0x").lower()


def _pci(folder: Path) -> str:
    for parent in (folder, *folder.parents[:_MOST_PARENTS]):
        if (parent / "subsystem").resolve().name == "pci":
            return parent.name
    return ""
