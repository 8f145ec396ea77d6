"""Disks of instances: what their plans must know of pools and projects, and what is refused at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from core.configkeys.devices import disk, registry
from core.errors import Invalid, NotFound, WrongState
from core.policy.restrictions import allowed_parent
from core.records import Instance, Volume
from core.state import keys
from core.state.store import Txn
from core.units import parse_bool
from services.runtime.domain.devices.plan import (
    Facts,
    HostDevice,
    HostNode,
    Options,
    VolumeFolder,
    cannot_start,
)
from services.runtime.store import RuntimeStore

FolderOf = Callable[[Volume], Path]


class InstanceFacts:
    """The facts of the host as the devices of an instance in *project* may use them."""

    def __init__(self, facts: Facts, store: RuntimeStore, folder_of: FolderOf, project: str) -> None:
        self._facts = facts
        self._store = store
        self._folder_of = folder_of
        self._project = project

    def volume(self, device: str, pool: str, name: str) -> VolumeFolder:
        try:
            volume = find_volume(self._store, pool, self._project, name)
            unmapped = parse_bool(volume.config.get("security.unmapped") or "false")
            return VolumeFolder(str(self._folder_of(volume)), unmapped)
        except (Invalid, NotFound) as exc:
            raise cannot_start(device, exc.message) from exc

    def bound(self, source: str) -> str:
        """Return the folder that holds *source*, of those a project is restricted to. Raises: WrongState."""
        entry = self._store.projects.get(keys.project(self._project))
        holding = allowed_parent(entry.record.config if entry else {}, source)
        if holding is None:
            raise WrongState(
                "NOT_ALLOWED", f'Disk source path "{source[:128]}" not allowed', about=source[:128]
            )
        return "" if holding == "/" else holding

    def node(self, path: str) -> HostNode | None:
        return self._facts.node(path)

    def is_there(self, path: str) -> bool:
        return self._facts.is_there(path)

    def devices(self) -> Sequence[HostDevice]:
        return self._facts.devices()

    def card_nodes(self, card: HostDevice) -> Sequence[str]:
        return self._facts.card_nodes(card)

    def infiniband_nodes(self, interface: str) -> Sequence[str]:
        return self._facts.infiniband_nodes(interface)

    def has_program(self, name: str) -> bool:
        return self._facts.has_program(name)

    def has_interface(self, name: str) -> bool:
        return self._facts.has_interface(name)

    def block(self, path: str) -> str:
        return self._facts.block(path)


def find_volume(store: RuntimeStore, pool: str, project: str, name: str) -> Volume:
    """Return a custom volume that a disk may show. Raises: NotFound in LXD's words."""
    try:
        store.pool(pool)
    except NotFound as exc:
        words = f'Failed to get storage pool "{pool}": {exc.message}'
        raise NotFound(exc.reason, words, about=pool) from None
    try:
        volume = store.volume(pool, project, name).record
    except NotFound:
        volume = Volume(status="Deleting")
    if not store.pools.is_made_here(pool):
        words = f"Custom volumes of pool {pool} lie on the member that made it; this instance is on another"
        raise Invalid("ELSEWHERE", words, about=name[:64])
    if volume.status != "Created":
        words = "Failed loading custom volume: Storage volume not found"
        raise NotFound("NO_VOLUME", words, about=name[:64])
    return volume


def check_disks(
    store: RuntimeStore, facts: Facts, txn: Txn, instance: Instance, new: Mapping[str, Options]
) -> None:
    """Check the *new* disks of *instance* against what there is, and let *txn* hold only while it is there.

    Raises: Invalid, NotFound.
    """
    for device, options in new.items():
        try:
            for key in _needed(store, facts, instance.project, device, options):
                txn.exists(key)
        except (Invalid, NotFound) as exc:
            words = f'Failed add validation for device "{device}": {exc.message}'
            raise type(exc)(exc.reason, words, about=device) from None


def check_places(instance: Instance) -> None:
    """Raises: Invalid when two disks of the instance itself have the same path."""
    try:
        registry.check_places(instance.devices)
    except Invalid as exc:
        raise Invalid(exc.reason, f"Invalid devices: {exc.message}", about=exc.about) from None


def _needed(store: RuntimeStore, facts: Facts, project: str, device: str, options: Options) -> Iterator[str]:
    """Yield the keys of the records that a disk needs."""
    if disk.is_volume(options):
        volume = find_volume(store, options["pool"], project, options["source"])
        if not disk.place(options):
            raise Invalid("NO_PATH", "Custom filesystem volumes require a path to be defined")
        yield keys.volume(volume.pool, volume.project, volume.name)
    elif disk.is_path(options) and disk.is_required(options) and not facts.is_there(options["source"]):
        source = options["source"]
        raise Invalid("NO_SOURCE", f'Missing source path "{source}" for disk "{device}"')
