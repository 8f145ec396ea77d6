"""The part of Ceph's tools that the driver uses, with loop devices in place of RBD images.

File systems on them are real, and so are mount, resize2fs and the freezing of a file system.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from core.errors import WrongState
from services.runtime.storage import folders

_GLOBAL = ["--cluster", "ceph", "--id", "admin"]


def refuse(why: str) -> WrongState:
    return WrongState("STORAGE_FAILED", f"rbd failed: {why}")


@dataclass
class Image:
    file: Path
    parent: str = ""
    device: str = ""
    meta: dict[str, str] = field(default_factory=dict)
    snapshots: dict[str, tuple[Path, bool]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.file.stat().st_size


class CephModel:
    def __init__(self, backing: Path) -> None:
        self._backing, self._made = backing, 0
        backing.mkdir()
        self.pools: dict[str, dict[str, dict[str, str]]] = {}
        self.images: dict[str, Image] = {}

    def close(self) -> None:
        for image in self.images.values():
            if image.device:
                folders.run(["losetup", "--detach", image.device])

    def run(self, argv: list[str], *, timeout_s: int = 120) -> str:
        if argv[0] not in ("ceph", "rbd"):
            return folders.run(argv, timeout_s=timeout_s)
        assert argv[1:5] == _GLOBAL
        words = [word for word in argv[5:] if word != "--no-progress"]
        own = "ceph" if argv[0] == "ceph" else "rbd"
        depth = {"osd": 2, "snap": 2, "image-meta": 2, "device": 2, "pool": 2}.get(words[0], 1)
        depth += words[1:3] == ["pool", "application"]
        name = "_".join((own, *words[:depth])).replace("-", "_")
        return str(getattr(self, f"_{name}")(words[depth:]) or "")

    # --- ceph ---

    def _ceph_osd_pool(self, words: list[str]) -> str:
        verb, *about = words
        if verb == "ls":
            return json(list(self.pools))
        if verb == "create":
            assert int(about[1]) > 0
            self.pools.setdefault(about[0], {})
        else:
            assert verb == "delete" and about[0] == about[1]
            self.pools.pop(about[0])
        return ""

    def _ceph_osd_pool_application(self, words: list[str]) -> str:
        verb, osd, *about = words
        if verb == "get":
            return json(self.pools[osd])
        keys = self.pools[osd].setdefault(about[0], {})
        if verb == "set":
            keys[about[1]] = about[2]
        return ""

    def _ceph_df(self, words: list[str]) -> str:
        stats = {"stored": 4096, "bytes_used": 12288, "max_avail": 1 << 30}
        return json({"pools": [{"name": name, "stats": stats} for name in self.pools]})

    # --- rbd ---

    def _rbd_pool_init(self, words: list[str]) -> None:
        if set(self.pools[words[0]]) - {"rbd"}:
            raise refuse("used for something else")
        self.pools[words[0]].setdefault("rbd", {})

    def _rbd_ls(self, words: list[str]) -> str:
        osd = words[-1]
        ours = {n.partition("/")[2]: i for n, i in self.images.items() if n.startswith(f"{osd}/")}
        if "--long" not in words:
            return json(list(ours))
        rows: list[dict[str, object]] = []
        for name, image in ours.items():
            row: dict[str, object] = {"image": name, "size": image.size, "format": 2}
            if image.parent:
                row["parent"] = self._parent(image.parent)
            rows.append(row)
            for snapshot, (_, protected) in image.snapshots.items():
                more = {"protected": "true"} if protected else {}
                rows.append({"image": name, "snapshot": snapshot, "size": image.size, "format": 2, **more})
        return json(rows)

    def _parent(self, snapshot_file: str) -> dict[str, str]:
        """A clone knows its parent by number, so by its new name after it was renamed."""
        for name, image in self.images.items():
            for snapshot, (file, _) in image.snapshots.items():
                if str(file) == snapshot_file:
                    pool, _, short = name.partition("/")
                    return {"pool": pool, "image": short, "snapshot": snapshot}
        raise AssertionError("a clone without its parent")

    def _rbd_info(self, words: list[str]) -> str:
        return json({"name": words[-1].partition("/")[2], "size": self._image(words[-1]).size})

    def _rbd_create(self, words: list[str]) -> None:
        self._put(words[-1], size=int(words[words.index("--size") + 1].removesuffix("B")))

    def _rbd_clone(self, words: list[str]) -> None:
        file, protected = self._snapshot(words[-2])
        if not protected:
            raise refuse("parent snapshot must be protected")
        self._put(words[-1], source=file, parent=str(file))

    def _rbd_cp(self, words: list[str]) -> None:
        self._put(words[-1], source=self._snapshot(words[-2])[0])

    def _put(self, name: str, *, size: int = 0, source: Path | None = None, parent: str = "") -> None:
        if name in self.images or name.partition("/")[0] not in self.pools:
            raise refuse("name in use, or no such pool")
        self.images[name] = Image(self._file(source), parent)
        if size:
            with self.images[name].file.open("ab") as file:
                file.truncate(size)

    def _file(self, source: Path | None) -> Path:
        self._made += 1
        made = self._backing / str(self._made)
        if source:
            subprocess.run(["cp", "--sparse=always", source, made], check=True)
        else:
            made.touch()
        return made

    def _rbd_snap_create(self, words: list[str]) -> None:
        name, _, snapshot = words[0].partition("@")
        image = self._image(name)
        subprocess.run(["sync", "--file-system", image.file], check=True)
        image.snapshots[snapshot] = (self._file(image.file), False)

    def _rbd_snap_protect(self, words: list[str]) -> None:
        self._protect(words[0], True)

    def _rbd_snap_unprotect(self, words: list[str]) -> None:
        if any(image.parent == str(self._snapshot(words[0])[0]) for image in self.images.values()):
            raise refuse("snapshot has children")
        self._protect(words[0], False)

    def _protect(self, spec: str, on: bool) -> None:
        name, _, snapshot = spec.partition("@")
        file, was = self._snapshot(spec)
        if was == on:
            raise refuse("it is that already")
        self._image(name).snapshots[snapshot] = (file, on)

    def _rbd_snap_rm(self, words: list[str]) -> None:
        name, _, snapshot = words[0].partition("@")
        file, protected = self._snapshot(words[0])
        if protected:
            raise refuse("snapshot is protected")
        file.unlink()
        del self._image(name).snapshots[snapshot]

    def _rbd_rename(self, words: list[str]) -> None:
        if words[1] in self.images or self._image(words[0]).device:
            raise refuse("name in use, or mapped")
        self.images[words[1]] = self.images.pop(words[0])

    def _rbd_rm(self, words: list[str]) -> None:
        image = self._image(words[0])
        if image.snapshots or image.device:
            raise refuse("image has snapshots or watchers")
        image.file.unlink()
        del self.images[words[0]]

    def _rbd_resize(self, words: list[str]) -> None:
        image, size = self._image(words[-1]), int(words[words.index("--size") + 1].removesuffix("B"))
        if size < image.size:
            raise refuse("shrinking an image is only allowed with --allow-shrink")
        with image.file.open("ab") as file:
            file.truncate(size)
        if image.device:
            folders.run(["losetup", "--set-capacity", image.device])

    def _rbd_image_meta_set(self, words: list[str]) -> None:
        self._image(words[0]).meta[words[1]] = words[2]

    def _rbd_image_meta_list(self, words: list[str]) -> str:
        return json(self._image(words[-1]).meta)

    def _rbd_device_list(self, words: list[str]) -> str:
        mapped = [(name.partition("/"), image) for name, image in self.images.items() if image.device]
        return json(
            [
                {"pool": n[0], "namespace": "", "name": n[2], "snap": "-", "device": i.device}
                for n, i in mapped
            ]
        )

    def _rbd_map(self, words: list[str]) -> str:
        image = self._image(words[0])
        assert not image.device
        image.device = folders.run(["losetup", "--find", "--show", str(image.file)]).strip()
        return f"{image.device}\n"

    def _rbd_unmap(self, words: list[str]) -> None:
        image = next(image for image in self.images.values() if image.device == words[0])
        if f" {words[0]} " in Path("/proc/self/mountinfo").read_text():
            raise refuse("device is busy")
        folders.run(["losetup", "--detach", image.device])
        image.device = ""

    def _image(self, name: str) -> Image:
        if name not in self.images:
            raise refuse("no such image")
        return self.images[name]

    def _snapshot(self, spec: str) -> tuple[Path, bool]:
        name, _, snapshot = spec.partition("@")
        return self._image(name).snapshots[snapshot]


def json(value: object) -> str:
    return orjson.dumps(value).decode()
