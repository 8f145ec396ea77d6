"""Keep run/etcd-endpoints: which etcds this member asks when its own is away."""

from __future__ import annotations

from core import membership
from core.records import Member
from core.settings import Settings
from core.state.cache import Cache
from core.state.repository import Entry


class Endpoints:
    def __init__(self, members: Cache[Member], settings: Settings) -> None:
        self._members = members
        self._settings = settings

    async def start(self) -> None:
        self._members.on_change(self._take)
        self._write()

    async def stop(self) -> None:
        """Nothing runs on its own here."""

    def _take(self, key: str, entry: Entry[Member] | None) -> None:
        self._write()

    def _write(self) -> None:
        """Nobody asks one that only follows, and the own one is asked by its socket."""
        if not self._settings.cluster:
            return
        records = [entry.record for entry in self._members.entries()]
        wanted = tuple(r.etcd for r in records if r.votes and r.etcd and r.name != self._settings.member)
        if wanted and wanted != membership.endpoints(self._settings.run_dir):
            membership.write_endpoints(self._settings.run_dir, wanted)
