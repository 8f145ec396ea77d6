"""The part of LVM's tools that the driver uses, with loop devices in place of thin volumes.

File systems on them are real, and so are mount, resize2fs and losetup. The tests in
tests/contract/test_lvm.py run on it and, where a host has thin volumes, on those.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from core.errors import WrongState
from services.runtime.storage import folders

_EXTENT = 4 << 20


def refuse(why: str) -> WrongState:
    return WrongState("STORAGE_FAILED", f"lvm failed: {why}")


@dataclass
class Thin:
    pool: str
    size: int
    tag: str
    file: Path | None = None
    device: str = ""


class LvmModel:
    """devices: the folder in place of /dev."""

    def __init__(self, devices: Path, backing: Path) -> None:
        self._devices, self._backing, self._made = devices, backing, 0
        backing.mkdir()
        self.groups: dict[str, tuple[str, str]] = {}
        self.volumes: dict[str, Thin] = {}

    def close(self) -> None:
        for volume in self.volumes.values():
            self._release(volume)

    def run(self, argv: list[str]) -> str:
        tool = getattr(self, f"_{argv[0]}", None)
        return folders.run(argv) if tool is None else tool(argv[1:]) or ""

    def _vgs(self, words: list[str]) -> str:
        columns, *names = words[words.index("-o") + 1 :]
        if names and names[0] not in self.groups:
            raise refuse("volume group not found")
        return "".join(f"  {self._cells(group, columns)}\n" for group in names or self.groups)

    def _cells(self, group: str, columns: str) -> str:
        cells = {"vg_name": group, "vg_tags": self.groups[group][0], "vg_free": "0"}
        return ",".join({**cells, "vg_extent_size": str(_EXTENT)}[key] for key in columns.split(","))

    def _lvs(self, words: list[str]) -> str:
        group = words[-1]
        if group not in self.groups:
            raise refuse("volume group not found")
        rows = ((n.partition("/")[2], v) for n, v in self.volumes.items() if n.startswith(f"{group}/"))
        return "".join(f"  {name},{v.pool},{v.size},12.50,{v.tag}\n" for name, v in rows)

    def _vgcreate(self, words: list[str]) -> None:
        _, tag, group, device = words
        if not Path(device).is_block_device() or any(device == one for _, one in self.groups.values()):
            raise refuse("no free device")
        self.groups[group] = (tag, device)

    def _vgchange(self, words: list[str]) -> None:
        busy = [v for v in self.volumes.values() if v.device and _is_mounted(v.device)]
        if words[-1] not in self.groups or ("n" in words and busy):
            raise refuse("volumes in use")

    def _vgremove(self, words: list[str]) -> None:
        if any(name.startswith(f"{words[0]}/") for name in self.volumes):
            raise refuse("volumes left")
        del self.groups[words[0]]

    def _pvremove(self, words: list[str]) -> None:
        assert Path(words[0]).is_block_device()

    def _pvresize(self, words: list[str]) -> None:
        assert Path(words[0]).is_block_device()

    def _lvcreate(self, words: list[str]) -> None:
        tag = words[words.index("--addtag") + 1]
        if "--extents" in words:
            name = f"{words[-1]}/{words[words.index('--thinpool') + 1]}"
            thin = Thin("", 512 << 20, tag)
        elif "--snapshot" in words:
            origin = self.volumes[words[-1]]
            name = f"{words[-1].partition('/')[0]}/{words[words.index('--name') + 1]}"
            thin = self._put(Thin(origin.pool, origin.size, tag), origin)
        else:
            group, _, pool = words[words.index("--thinpool") + 1].partition("/")
            name = f"{group}/{words[words.index('--name') + 1]}"
            size = int(words[words.index("--virtualsize") + 1].removesuffix("b"))
            thin = self._put(Thin(pool, -(-size // _EXTENT) * _EXTENT, tag), None)
        if name in self.volumes or any(char in name for char in ":@ "):
            raise refuse("bad or used name")
        self.volumes[name] = thin
        self._link(name)

    def _put(self, thin: Thin, origin: Thin | None) -> Thin:
        self._made += 1
        thin.file = self._backing / str(self._made)
        if origin and origin.file:
            subprocess.run(["sync"], check=True)
            subprocess.run(["cp", "--sparse=always", origin.file, thin.file], check=True)
        with thin.file.open("ab") as file:
            file.truncate(thin.size)
        thin.device = folders.run(["losetup", "--find", "--show", str(thin.file)]).strip()
        return thin

    def _lvremove(self, words: list[str]) -> None:
        name = words[-1]
        group, _, pool = name.partition("/")
        gone = [name, *(n for n, v in self.volumes.items() if n.startswith(f"{group}/") and v.pool == pool)]
        for one in gone:
            if self.volumes[one].device and _is_mounted(self.volumes[one].device):
                raise refuse("in use")
            self._release(self.volumes.pop(one))
            (self._devices / one).unlink(missing_ok=True)

    def _lvrename(self, words: list[str]) -> None:
        old, new = (f"{words[0]}/{name}" for name in words[1:])
        if new in self.volumes:
            raise refuse("name in use")
        self.volumes[new] = self.volumes.pop(old)
        (self._devices / old).unlink()
        self._link(new)

    def _lvextend(self, words: list[str]) -> None:
        volume, size = self.volumes[words[-1]], int(words[1].removesuffix("b"))
        if size <= volume.size or volume.file is None:
            raise refuse("new size is not larger")
        volume.size = size
        with volume.file.open("ab") as file:
            file.truncate(size)
        folders.run(["losetup", "--set-capacity", volume.device])

    def _link(self, name: str) -> None:
        if device := self.volumes[name].device:
            (self._devices / name).parent.mkdir(parents=True, exist_ok=True)
            (self._devices / name).symlink_to(device)

    def _release(self, volume: Thin) -> None:
        if volume.device:
            folders.run(["losetup", "--detach", volume.device])
            volume.device = ""
        if volume.file:
            volume.file.unlink(missing_ok=True)


def _is_mounted(device: str) -> bool:
    return f" {device} " in Path("/proc/self/mountinfo").read_text()
