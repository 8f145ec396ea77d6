"""Forwards as nftables rules. A mark beside goes before the first rule and after the last."""

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
        if not forwards:
            mark.unlink(missing_ok=True)
