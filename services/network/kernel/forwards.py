"""Forwards as nftables rules. A mark beside goes before the first rule and after the last.

It holds the rules as the kernel listed them and the script that made them, so that they can be put back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from services.network.domain import forwards as rules
from services.network.domain.forwards import Forward
from services.network.kernel.nft import Nft


class NftForwards:
    """Implements ports.Forwards; *folder* holds the marks, named by instance."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nft = Nft()

    async def set(self, instance_id: str, forwards: Sequence[Forward]) -> None:
        await asyncio.to_thread(self._set, instance_id, forwards)

    async def ensure(self, instance_id: str) -> None:
        await asyncio.to_thread(self._ensure, instance_id)

    def known(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir()) if self._folder.exists() else []

    def _set(self, instance_id: str, forwards: Sequence[Forward]) -> None:
        script, mark = rules.render(instance_id, forwards), self._folder / instance_id
        if forwards:
            self._folder.mkdir(exist_ok=True)
            mark.touch()
        elif not mark.exists():
            return
        self._nft.run(script)
        if forwards:
            self._note(instance_id, script)
        else:
            mark.unlink(missing_ok=True)

    def _note(self, instance_id: str, script: str) -> None:
        (self._folder / instance_id).write_text(f"{self._listed(instance_id)}\0{script}")

    def _ensure(self, instance_id: str) -> None:
        mark = self._folder / instance_id
        listed, _, script = (
            mark.read_text(errors="replace").partition("\0") if mark.exists() else ("", "", "")
        )
        if script and listed != self._listed(instance_id):
            self._nft.run(script)
            self._note(instance_id, script)

    def _listed(self, instance_id: str) -> str:
        return self._nft.find(f"list table inet {rules.table_of(instance_id)}")
