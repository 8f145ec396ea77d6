"""Make a running instance have exactly the devices that are planned for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Container, Iterable
from pathlib import Path

from core.errors import Invalid, WrongState
from core.failpoints import declare, failpoint
from core.logs import get_logger
from services.runtime.devices import forwards, inside
from services.runtime.devices.ledger import Ledger
from services.runtime.devices.rules import DeviceRules
from services.runtime.domain.devices.plan import Bind, DevicePlan, Forward, Node, cannot_start
from services.runtime.kernel import mountapi, uevents
from services.runtime.kernel.beneath import open_beneath
from services.runtime.kernel.patience import Patience
from services.runtime.kernel.processes import open_guest
from services.runtime.ports import Guest, HostEvents

log = get_logger(__name__)
_POINTS = ("devices.plug.begun", "devices.plug.made", "devices.plug.taken")
_DEADLINE_S = 20.0
_NO_GUEST = -1
_TYPES = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}


class LinuxDevices:
    """Implements ports.GuestDevices below <state>/instances."""

    def __init__(self, state_dir: Path, events: HostEvents) -> None:
        self._events = events
        self._instances = state_dir / "instances"
        self._rules = DeviceRules(self._instances)
        self._namespaces = mountapi.UserNamespaces()
        self._locks: dict[str, asyncio.Lock] = {}
        # One at a time, also while one does not come to an end: two would step on each other's notes.
        self._patience = Patience(deadline_s=_DEADLINE_S, most=1)
        self._heard: set[tuple[int, int]] = set()
        declare(*_POINTS)

    async def ensure(
        self,
        guest: Guest,
        plans: tuple[DevicePlan, ...],
        *,
        starting: bool = False,
        optional: Container[str] = (),
    ) -> None:
        for path in (path for plan in plans for path in plan.watched):
            self._events.watch(path)
        # The guest may have made a file system there whose answers come from a program of its own.
        await self._patience.call(guest.id, self._ensure, guest, plans, starting, optional)
        for plan in plans:
            if plan.forward and not starting:
                self._hear_of_end(guest.id, plan.device)

    def _hear_of_end(self, id: str, device: str) -> None:
        """Tell of it when the process of a proxy ends, whoever ended it."""
        process = forwards.open_process(Ledger(self._instances / id / "devices").folder(device))
        if process is None or process.key in self._heard:
            if process:
                os.close(process.fd)
            return
        self._heard.add(process.key)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(process.fd)
            os.close(process.fd)
            self._heard.discard(process.key)
            self._events.tell(id)

        loop.add_reader(process.fd, ended)

    def held(self, id: str) -> asyncio.Lock:
        return self._locks.setdefault(id, asyncio.Lock())

    def plugged(self, id: str) -> list[DevicePlan]:
        ledger = Ledger(self._instances / id / "devices")
        return [*ledger.whole().values(), *ledger.half().values()]

    async def clear(self, id: str) -> None:
        await asyncio.to_thread(_clear, self._instances / id / "devices")
        self._locks.pop(id, None)

    def _ensure(
        self, guest: Guest, plans: tuple[DevicePlan, ...], starting: bool, optional: Container[str]
    ) -> None:
        ledger = Ledger(self._instances / guest.id / "devices")
        noted = ledger.whole()
        has = {device: plan for device, plan in noted.items() if _lives(ledger, plan)}
        wanted = {plan.device: plan for plan in plans}
        gone = [plan for device, plan in noted.items() if device not in has or wanted.get(device) != plan]
        gone += ledger.half().values()
        missing = [plan for plan in plans if has.get(plan.device) != plan]
        if not gone and not missing:
            return
        try:
            process = open_guest(guest.pid, guest.id, guest.idmap)
        except (FileNotFoundError, ProcessLookupError):
            return  # it ended: whoever watches it cleans up
        try:
            work = _Work(guest, process, ledger, self._rules, self._namespaces, starting=starting)
            for plan in reversed(gone):
                work.unplug(plan)
            for plan in missing:
                # What has a process is for an instance that runs.
                if not (starting and plan.forward):
                    _plug(work, plan, is_optional=plan.device in optional)
        finally:
            os.close(process)


def _plug(work: _Work, plan: DevicePlan, *, is_optional: bool) -> None:
    """Raises: WrongState, where it is not optional."""
    try:
        work.plug(plan)
    except WrongState as exc:
        if not is_optional:
            raise
        log.warning("device_left_out", device=plan.device, error=exc.message)


def _lives(ledger: Ledger, plan: DevicePlan) -> bool:
    return plan.forward is None or forwards.is_alive(ledger.folder(plan.device))


def _clear(folder: Path) -> None:
    ledger = Ledger(folder)
    for plan in (*ledger.whole().values(), *ledger.half().values()):
        if plan.forward:
            forwards.stop(plan.forward, ledger.folder(plan.device), _NO_GUEST)
    shutil.rmtree(folder, ignore_errors=True)


class _Work:
    """One pass over the devices of one guest. *process* is a descriptor of its /proc folder."""

    def __init__(
        self,
        guest: Guest,
        process: int,
        ledger: Ledger,
        rules: DeviceRules,
        namespaces: mountapi.UserNamespaces,
        *,
        starting: bool,
    ) -> None:
        self._guest = guest
        self._process = process
        self._ledger = ledger
        self._rules = rules
        self._namespaces = namespaces
        self._starting = starting

    def plug(self, plan: DevicePlan) -> None:
        """Plug a device; what was done of it is taken back when that fails. Raises: WrongState."""
        folder = self._ledger.begin(plan)
        try:
            failpoint("devices.plug.begun")
            self._allow(plan.rules)
            for number, node in enumerate(plan.nodes):
                source = self._make(folder / f"node{number}", node)
                self._bind(plan.device, number, Bind(str(source), node.path))
            for number, bind in enumerate(plan.binds):
                self._bind(plan.device, number, bind)
            if plan.forward:
                label = f"podium-proxy {self._guest.project}/{self._guest.name}/{plan.device}"
                self._forward(plan.forward, folder, label)
        except BaseException as exc:
            self.unplug(plan)
            if isinstance(exc, (OSError, Invalid)):
                why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
                raise cannot_start(plan.device, why) from exc
            raise
        failpoint("devices.plug.made")
        self._announce(plan)
        self._ledger.done(plan.device)
        log.info("device_plugged", instance=self._guest.name, device=plan.device)

    def _forward(self, forward: Forward, folder: Path, label: str) -> None:
        try:
            forwards.start(forward, folder, self._process, self._guest.idmap, label)
        except OSError as exc:
            why = exc.strerror or str(exc)
            raise OSError(f"Error occurred when starting proxy device: Error: {why}") from exc

    def unplug(self, plan: DevicePlan) -> None:
        """Take out what is there of *plan*, but for rules that other devices need. Repeatable."""
        folder = self._ledger.folder(plan.device)
        places = [(str(folder / f"node{number}"), node.path) for number, node in enumerate(plan.nodes)]
        places += [(bind.source, bind.path) for bind in plan.binds]
        noted = self._ledger.places(plan.device)
        for source, path in reversed(places):
            with contextlib.suppress(OSError, Invalid):
                inside.detach(self._process, path, noted.get(path) or _identity(os.stat(source)))
        self._tell("remove", self._ledger.told(plan.device))
        if plan.forward:
            forwards.stop(plan.forward, folder, self._process)
        others = (other for device, other in self._ledger.whole().items() if device != plan.device)
        for rule in sorted(plan.rules.difference(*(other.rules for other in others))):
            self._rules.deny(self._guest.id, rule)
        failpoint("devices.plug.taken")
        self._ledger.forget(plan.device)
        log.info("device_unplugged", instance=self._guest.name, device=plan.device)

    def _announce(self, plan: DevicePlan) -> None:
        """Tell udev inside of what came while it ran; what is there at a start it looks for itself."""
        if plan.announced and not self._starting:
            found = [uevents.describe(node.kind, node.major, node.minor) for node in plan.nodes]
            events = [event for event in found if event]
            self._ledger.tell(plan.device, events)
            self._tell("add", events)

    def _tell(self, action: str, events: list[dict[str, str]]) -> None:
        for event in events:
            try:
                uevents.send(self._process, self._guest.idmap.root, action, event)
            except OSError as exc:
                log.warning("guest_not_told", instance=self._guest.name, action=action, error=str(exc))

    def _allow(self, rules: Iterable[str]) -> None:
        # At a start they stand in the engine's configuration, and the engine does not answer yet.
        for rule in sorted(rules) if not self._starting else ():
            self._rules.allow(self._guest.id, rule)

    def _make(self, path: Path, node: Node) -> Path:
        """Make the node on the host: a guest may not, and it must be owned by ids of the guest."""
        os.mknod(path, _TYPES[node.kind] | 0o600, os.makedev(node.major, node.minor))
        os.chown(path, *self._guest.idmap.owner(node.uid, node.gid))
        os.chmod(path, node.mode)
        return path

    def _bind(self, device: str, number: int, bind: Bind) -> None:
        tree = _tree(bind)
        try:
            # Private unless asked: else what the guest mounts below it would be mounted on the host.
            mountapi.set_attributes(
                tree,
                read_only=bind.read_only,
                propagation=bind.propagation or "private",
                recursive=bind.recursive,
                suid=bind.is_volume and "nosuid" not in bind.options,
                options=bind.options,
            )
            if bind.shifted:
                self._shift(tree, recursive=bind.recursive)
            self._ledger.note(device, bind.path, _identity(os.fstat(tree)))
            if bind.read_only or bind.options:
                passage = self._ledger.folder(device) / f"passage{number}"
                passage.mkdir(mode=0o700)
                inside.attach_locked(self._process, self._guest.idmap.root, tree, bind.path, passage)
            else:
                inside.attach(self._process, self._guest.idmap.root, tree, bind.path)
        finally:
            os.close(tree)

    def _shift(self, tree: int, *, recursive: bool) -> None:
        if self._guest.idmap.is_privileged:
            return
        userns = self._namespaces.get(self._guest.idmap)
        try:
            mountapi.set_attributes(tree, userns=userns, recursive=recursive)
        except OSError as exc:
            raise Invalid("NO_SHIFT", "Required idmapping abilities not available") from exc
        finally:
            os.close(userns)


def _tree(bind: Bind) -> int:
    """Return a detached copy of the mount that *bind* shows, opened where it may be."""
    if not bind.beneath:
        return mountapi.open_tree(Path(bind.source), recursive=bind.recursive)
    with mountapi.descriptors() as fds:
        fds.append(os.open(bind.beneath, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        fds.append(open_beneath(fds[0], os.path.relpath(bind.source, bind.beneath), os.O_PATH))
        return mountapi.open_tree_at(fds[1], recursive=bind.recursive)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
