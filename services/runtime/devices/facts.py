"""What the host has: device nodes, and the vendor and product of those that have them, from sysfs."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.runtime.domain.devices.plan import HostDevice, HostNode, VolumeFolder
from services.runtime.kernel.blocks import block_of

_MOST_PARENTS = 12
_NVIDIA, _AMD = "10de", "1002"


class HostFacts:
    """Implements Facts; read anew with each question."""

    def __init__(self, sys: Path = Path("/sys"), dev: Path = Path("/dev")) -> None:
        self._sys = sys
        self._dev = dev
        self._nvidia = Path("/proc/driver/nvidia/gpus")

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

    def card_nodes(self, card: HostDevice) -> Sequence[str]:
        if card.vendor == _AMD:
            return _there(["/dev/kfd"])
        if card.vendor != _NVIDIA:
            return ()
        about = self._nvidia / card.pci / "information"
        found = re.search(r"^Device Minor:\s*([0-9]+)", _text(about), re.MULTILINE)
        own = [f"/dev/nvidia{found[1]}"] if found else []
        return _there([*own, *(f"/dev/nvidia{name}" for name in ("ctl", "-modeset", "-uvm", "-uvm-tools"))])

    def infiniband_nodes(self, interface: str) -> Sequence[str]:
        """Names in /dev/infiniband are those that the drivers of its protocols gave the same device."""
        pci = self._sys / "class" / "net" / interface / "device"
        kinds = ("infiniband_verbs", "infiniband_mad")
        names = (path.name for kind in kinds for path in sorted((pci / kind).glob("*")))
        return _there([f"/dev/infiniband/{name}" for name in names])

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


def _there(paths: list[str]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _properties(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in _text(path).splitlines() if "=" in line)


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
