"""The root of a stopped instance: mounted while somebody looks, and never half."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from services.runtime.domain.idmaps import id_map
from services.runtime.domain.target import Target
from services.runtime.usecases.inside.files import Roots


class SlowMounts:
    """A mount is a file in the folder; unmounting takes a moment, in which it is still there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def mount(self, instance: object) -> Path:
        (self.folder / "mounted").touch()
        return self.folder

    async def ensure_unmounted(self, id: str) -> None:
        await asyncio.sleep(0.02)
        (self.folder / "mounted").unlink(missing_ok=True)


async def test_who_comes_while_the_last_one_leaves_finds_the_root_and_not_what_lies_below(
    tmp_path: Path,
) -> None:
    """And not what lies below: a client has its answer before the mount is gone, and asks again at once."""
    mounts, nothing = SlowMounts(tmp_path), SimpleNamespace(get=lambda key: None)
    store: Any = SimpleNamespace(observed=nothing, instance=lambda p, n: SimpleNamespace(record=None))
    host: Any = SimpleNamespace(mount=mounts.mount, rootfs=mounts)
    roots = Roots(store, host)
    target = Target("id", "default", "web", "stopped", idmap=id_map(1_000_000))

    async def look(after_s: float) -> bool:
        await asyncio.sleep(after_s)
        async with roots.open(target) as root:
            await asyncio.sleep(0.005)
            return root.use(lambda fd: "mounted" in os.listdir(f"/proc/self/fd/{fd}"))

    assert all(await asyncio.gather(*(look(number * 0.007) for number in range(8))))
    assert not (tmp_path / "mounted").exists()
