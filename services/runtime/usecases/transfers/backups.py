"""Backups of instances: archives that lie here until they are fetched, deleted, or expire.

Files follow records: what has no record is removed, at once where this process sees the record go and at
every start. So the deletion of an instance, which takes the records of its backups, needs to know no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from core.compression import parse_compression
from core.errors import AlreadyExists, Invalid, NotFound, PodiumError, Stale, Unavailable
from core.events import Event
from core.logs import get_logger
from core.operations.operation import Context, Operation, Step, Story
from core.operations.runner import Runner
from core.records import Backup, Instance
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.state.store import Txn
from services.runtime.usecases.host import Host
from services.runtime.usecases.policy import Policy
from services.runtime.usecases.transfers.archive import Archives

log = get_logger(__name__)
_CREATE, _DELETE, _RENAME = "backup.create", "backup.delete", "backup.rename"
_MAKING = (_CREATE, _DELETE, "volumebackup.create", "volumebackup.delete")
_ATTEMPTS = 8
_AT_ONCE = 4
_CHUNK = 1 << 20
_TELL_EVERY_S = 0.5
_EXPIRE_EVERY_S = 60.0
_SETTLE_S = 0.5
_NUMBERED = re.compile(r"backup([0-9]{1,9})")


@dataclass(frozen=True)
class WantedBackup:
    """name "": the next number. compression "": gzip."""

    name: str = ""
    expires_at: float = 0.0
    instance_only: bool = False
    compression: str = ""


def backup_name(name: str) -> str:
    """Raises: Invalid."""
    if "/" in name:
        raise Invalid("BAD_NAME", "Backup names may not contain slashes", about=name[:64])
    if not 0 < len(name) <= 255 or not name.isprintable() or name in (".", ".."):
        raise Invalid("BAD_NAME", "Backup names have 1-255 printable characters", about=name[:64])
    return name


class Backups:
    def __init__(self, host: Host, policy: Policy, archives: Archives, runner: Runner, folder: Path) -> None:
        self._policy = policy
        self._store = host.store
        self._archives = archives
        # Each takes a processor or more, and any client may ask for hundreds.
        self.places = asyncio.Semaphore(_AT_ONCE)
        self._runner = runner
        self._folder = folder
        self._ids: dict[str, str] = {}
        # For those of volumes, which have the same records and files.
        self.expire_others: Callable[[Backup], Awaitable[None]] = _nothing
        self._task: asyncio.Task[None] | None = None
        self._store.backups.on_change(self._follow)
        runner.register(
            Story(
                _CREATE,
                "Backing up instance",
                (Step("pack", self._pack, self._unpack),),
                may_cancel=True,
                on_failure=self._forget,
            ),
            Story(_DELETE, "Removing instance backup", (Step("remove", self._remove),)),
            Story(_RENAME, "Renaming instance backup", ()),
        )

    async def start(self) -> None:
        """Sweep what a crash left, and delete from now on what expires."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        known = {entry.record.id for entry in self._store.backups.entries()}
        for path in self._folder.iterdir():
            if path.name.split(".")[0] not in known:
                path.unlink(missing_ok=True)
        self._task = asyncio.create_task(self._expire())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    # --- what is asked for -------------------------------------------------------------------------

    async def create(self, project: str, name: str, wanted: WantedBackup) -> Operation:
        """Raises: NotFound, Invalid, AlreadyExists, Forbidden."""
        parse_compression(wanted.compression or "gzip").argv()
        self._policy.check_backups(project)
        for _ in range(_ATTEMPTS):
            entry = self._store.instance(project, name)
            backup = self._decided(entry.record, wanted)
            key = keys.backup(entry.record.id, backup.name)
            txn = Txn().exists(keys.instance(project, name)).absent(key).put(key, backup)
            with contextlib.suppress(Stale):
                return await self._accept(_CREATE, entry.record, backup, txn)
        raise self._taken(entry.record, wanted.name)

    def _decided(self, instance: Instance, wanted: WantedBackup) -> Backup:
        taken = {entry.record.name for entry in self._store.backups_of(instance)}
        if wanted.name in taken:
            raise self._taken(instance, wanted.name)
        return Backup(
            id=str(uuid.uuid4()),
            instance_id=instance.id,
            name=backup_name(wanted.name or next_name(taken)),
            created_at=time.time(),
            expires_at=wanted.expires_at,
            instance_only=wanted.instance_only,
            compression=wanted.compression,
        )

    def _taken(self, instance: Instance, name: str) -> AlreadyExists:
        return AlreadyExists("EXISTS", f'Create backup: Backup "{instance.name}/{name}" already exists')

    async def rename(self, project: str, name: str, backup: str, new_name: str) -> Operation:
        """Raises: NotFound, AlreadyExists, Invalid."""
        instance, old = self.find(project, name, backup)
        backup_name(new_name)
        new = replace(old.record, name=new_name)
        key, new_key = keys.backup(instance.id, backup), keys.backup(instance.id, new_name)
        txn = Txn().unchanged(key, old.revision).absent(new_key).delete(key).put(new_key, new)
        try:
            return await self._accept(_RENAME, instance, new, txn)
        except Stale:
            raise AlreadyExists("EXISTS", f'Backup "{name}/{new_name}" already exists') from None

    async def delete(self, project: str, name: str, backup: str) -> Operation:
        """Raises: NotFound."""
        instance, found = self.find(project, name, backup)
        key = keys.backup(instance.id, backup)
        txn = Txn().unchanged(key, found.revision).put(key, replace(found.record, status="Deleting"))
        return await self._accept(_DELETE, instance, found.record, txn)

    def list(self, project: str, name: str) -> list[Backup]:
        """Return the whole ones, by name. Raises: NotFound."""
        found = self._store.backups_of(self._store.instance(project, name).record)
        return [entry.record for entry in found if entry.record.status == "Created"]

    def find(self, project: str, name: str, backup: str) -> tuple[Instance, Entry[Backup]]:
        """Raises: NotFound."""
        instance = self._store.instance(project, name).record
        found = self._store.backup(instance, backup)
        if found.record.status != "Created":
            raise NotFound("NO_BACKUP", "Load backup from database: Instance backup not found", about=backup)
        return instance, found

    async def tell_retrieved(self, instance: Instance, backup: Backup) -> None:
        """Let listeners know who took data out; that the state is away must not keep it in."""
        who = current_identity().as_dict()
        name = f"{instance.name}/backups/{backup.name}"
        with contextlib.suppress(Unavailable):
            await self._store.commit(Txn().emit(_event("retrieved", instance.project, name, who)))

    async def read(self, backup: Backup) -> AsyncGenerator[bytes, None]:
        """Yield the archive. Raises: NotFound."""
        try:
            file = self.path(backup.id).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound(
                "NO_FILE", "The file of the backup is gone; delete it", about=backup.name
            ) from None
        with file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk

    async def _accept(self, kind: str, instance: Instance, backup: Backup, txn: Txn) -> Operation:
        resources: dict[str, tuple[str, ...]] = {"instances": (instance.name,)}
        if kind == _CREATE:
            resources["backups"] = (backup.name,)
        if kind == _RENAME:
            who = current_identity().as_dict()
            txn.emit(_event("renamed", instance.project, f"{instance.name}/backups/{backup.name}", who))
        return await self._runner.accept(
            kind,
            project=instance.project,
            resources=resources,
            input={
                "project": instance.project,
                "instance": instance.name,
                "instance_id": instance.id,
                "id": backup.id,
                "name": backup.name,
            },
            txn=txn,
        )

    # --- steps ---------------------------------------------------------------------------------------

    async def _pack(self, ctx: Context) -> None:
        async with self.places:
            await self._packed(ctx)

    async def _packed(self, ctx: Context) -> None:
        instance, backup = self._of(ctx)
        partial = self.path(f"{backup.id}.partial")
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            compression = parse_compression(backup.compression or "gzip")
            writing = asyncio.create_task(
                self._archives.write(instance, file, compression, instance_only=backup.instance_only)
            )
            try:
                while not (await asyncio.wait([writing], timeout=_TELL_EVERY_S))[0]:
                    size = os.fstat(file).st_size
                    await ctx.progress(create_backup_progress=f"{size / 1e6:.2f}MB")
                writing.result()
            finally:
                writing.cancel()
                await asyncio.wait([writing])
            size = os.fstat(file).st_size
        finally:
            os.close(file)
        partial.rename(self.path(backup.id))
        key = keys.backup(backup.instance_id, backup.name)
        # Not without the instance: it took the records of its backups with it.
        ctx.txn.exists(keys.instance(instance.project, instance.name)).exists(key)
        ctx.txn.put(key, replace(backup, status="Created", size=size))
        ctx.txn.emit(self._told(ctx, "created"))

    async def _unpack(self, ctx: Context) -> None:
        for name in (ctx.input["id"], f"{ctx.input['id']}.partial"):
            self.path(name).unlink(missing_ok=True)

    async def _forget(self, ctx: Context) -> None:
        ctx.undo_txn.delete(keys.backup(ctx.input["instance_id"], ctx.input["name"]))

    async def _remove(self, ctx: Context) -> None:
        await self._unpack(ctx)
        ctx.txn.delete(keys.backup(ctx.input["instance_id"], ctx.input["name"]))
        ctx.txn.emit(self._told(ctx, "deleted"))

    def _told(self, ctx: Context, what: str) -> Event:
        name = f"{ctx.input['instance']}/backups/{ctx.input['name']}"
        return ctx.event(f"instance-backup-{what}", "instances", name)

    def _of(self, ctx: Context) -> tuple[Instance, Backup]:
        instance = self._store.instance(ctx.input["project"], ctx.input["instance"]).record
        return instance, self._store.backup(instance, ctx.input["name"]).record

    # --- files follow records --------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """Return where the file of a backup lies, by its id."""
        return self._folder / name

    def _follow(self, key: str, entry: Entry[Backup] | None) -> None:
        """Note ids, and remove the file of a record that went. Called for each change, in order."""
        if entry:
            self._ids[key] = entry.record.id
        elif id := self._ids.pop(key, ""):
            # A rename is told in two parts, and the new name may come last.
            asyncio.get_running_loop().call_later(_SETTLE_S, self._remove_stray, id)

    def _remove_stray(self, id: str) -> None:
        if id not in self._ids.values():
            self.path(id).unlink(missing_ok=True)

    async def _expire(self) -> None:
        while True:
            now = time.time()
            for key, entry in self._store.backups.items():
                try:
                    if entry.record.status != "Created":
                        await self._tidy(key, entry)
                    elif 0 < entry.record.expires_at < now:
                        await self._delete_expired(entry.record)
                except PodiumError as exc:
                    log.warning("backup_not_removed", key=key, error=str(exc))
            await asyncio.sleep(_EXPIRE_EVERY_S)

    async def _delete_expired(self, backup: Backup) -> None:
        for entry in self._store.instances.entries():
            if entry.record.id == backup.instance_id:
                await self.delete(entry.record.project, entry.record.name, backup.name)
                return
        await self.expire_others(backup)

    async def _tidy(self, key: str, entry: Entry[Backup]) -> None:
        """Forget a half-made one whose operation is over: its instance was renamed or deleted meanwhile."""
        live = [id for kind in _MAKING for id in self._runner.live_of(kind)]
        if all(self._runner.get(id).input["id"] != entry.record.id for id in live):
            await self._store.commit(Txn().unchanged(key, entry.revision).delete(key))


async def _nothing(backup: Backup) -> None:
    return None


def next_name(taken: set[str]) -> str:
    numbers = [int(found[1]) for name in taken if (found := _NUMBERED.fullmatch(name))]
    return f"backup{max(numbers, default=-1) + 1}"


def _event(what: str, project: str, name: str, who: dict[str, str]) -> Event:
    return Event(f"instance-backup-{what}", "instances", project, name, who)
