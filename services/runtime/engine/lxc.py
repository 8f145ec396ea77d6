"""liblxc by its command line: one monitor of 1.5 MB per instance owns init, console and exit.

No state is kept here. A monitor is found by its pid file and believed only if its own title names
the instance; so any process can pick up where another was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from core.errors import NotFound, PodiumError, WrongState
from core.logs import get_logger
from services.runtime.domain.idmaps import IdMap
from services.runtime.engine import config as rendering
from services.runtime.engine import inits
from services.runtime.kernel import lxcfs
from services.runtime.kernel.beneath import has_any
from services.runtime.kernel.cgroups import folders
from services.runtime.kernel.endings import exit_code, is_failure, wait_status
from services.runtime.kernel.gate import refuse_waiting
from services.runtime.kernel.hold import Hold
from services.runtime.kernel.patience import Patience
from services.runtime.kernel.processes import Child, gone, open_guest
from services.runtime.kernel.sealed import SealedPrograms
from services.runtime.ports import EnginePlan, ExecPlan, ExitRecord

_START_TIMEOUT_S = 60.0
_PATIENCE_S = 5.0
log = get_logger(__name__)
_HERE = Path(__file__).resolve().parent
# What liblxc puts before its words: who, when, and where in its source. The log has it all.
_WHERE = re.compile(r".*? ERROR +\S+ - (?:\S+\.c:\w+:\d+ - )?")
# Without a PATH liblxc maps ids by itself, which root may. Where it finds newuidmap and newgidmap, which come
# with many a package, it starts a shell for each (4 ms). The hooks set a PATH of their own.
_ENV = {"LANG": "C.UTF-8", "PATH": "/nonexistent"}
# Where a system has the daemon that names devices.
_UDEV = ("/lib/systemd/systemd-udevd", "/usr/lib/systemd/systemd-udevd", "/sbin/udevd", "/usr/sbin/udevd")
# Debian's tini: passes signals on to the one program it starts, reaps orphans, ends as that ends.
_INIT = Path("/usr/bin/tini-static")
# What it ends with when there is no such program, or none that can be run.
_NOT_BEGUN = (126, 127)
_FREEZER = Path("/sys/fs/cgroup/freezer/podium")
# systemd takes SIGRTMIN+3 as "power off" (systemd(1), SIGNALS); other inits get SIGPWR.
_POWEROFF_SYSTEMD = signal.SIGRTMIN + 3


class LxcEngine:
    """Implements ports.Engine below <state>/instances."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "instances"
        self._helpers = state_dir / "engine"
        self._lxcfs = lxcfs.Lxcfs(state_dir / "lxcfs", lxcfs.HOST)
        self._patience = Patience(deadline_s=_PATIENCE_S, most=2)
        self._sealed = SealedPrograms()
        self._inits = inits.Inits()
        self._v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        self._install_helpers()
        refuse_waiting(self._root)
        self.version = _version()

    def folder(self, id: str) -> Path:
        return self._root / id

    async def start(self, plan: EnginePlan, ready: Callable[[int], Awaitable[None]] | None = None) -> int:
        if pid := self.pid(plan.id):
            if ready or plan.is_held:
                await self._make_ready(plan, ready)
            await self.show_figures(plan.id, plan.idmap)
            return pid
        folder = await asyncio.to_thread(self._prepare, plan)
        argv = ["lxc-start", "-d", "-n", plan.id, "-P", str(self._root), "-f", str(folder / "lxc.conf")]
        argv += ["-p", str(folder / "monitor.pid"), *rendering.command(plan)]
        process = Child(argv, program=self._sealed.path("lxc-start"), env=_ENV)
        ended = asyncio.ensure_future(process.wait())
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                if plan.is_held and await Hold(folder).reached(ended):
                    await self._make_ready(plan, ready)
                code = await asyncio.shield(ended)
        except TimeoutError:
            process.kill()
            code = await ended
        if plan.application and not code:
            await inits.began(self.pid(plan.id))
        pid = self.pid(plan.id)
        if not pid and self._has_ended(plan, folder):
            return 0
        if code or not pid:
            # The monitor may still be cleaning up; whoever retries must not meet it.
            await self.kill(plan.id)
            raise await asyncio.to_thread(_start_failed, folder)
        await self.show_figures(plan.id, plan.idmap)
        return pid

    def figures(self) -> int:
        return self._lxcfs.serving()

    async def show_figures(self, id: str, idmap: IdMap) -> None:
        try:
            # The guest runs, and may answer for its /proc by a program of its own.
            await self._patience.call(id, self._show_figures, id, idmap)
        except PodiumError as exc:
            log.warning("lxcfs_not_attached", id=id, error=exc.message)

    def _show_figures(self, id: str, idmap: IdMap) -> None:
        with contextlib.suppress(OSError):  # it has ended already, and whoever watches it will say so
            guest = open_guest(self.pid(id), id, idmap)
            try:
                self._lxcfs.attach(guest)
            finally:
                os.close(guest)

    async def _make_ready(self, plan: EnginePlan, ready: Callable[[int], Awaitable[None]] | None) -> None:
        if plan.application and not self._inits.is_held(plan.id):
            await asyncio.to_thread(self._inits.hold, plan, self.pid(plan.id))
        try:
            if ready:
                await ready(self.pid(plan.id))
        except PodiumError:
            await self.kill(plan.id)
            raise
        self.release(plan.id)

    def _has_ended(self, plan: EnginePlan, folder: Path) -> bool:
        """Say whether an application began and has ended since, which is no failure of a start."""
        code = self._inits.code(plan.id)
        return code is not None and code not in _NOT_BEGUN and not _errors(folder)

    def release(self, id: str) -> None:
        Hold(self.folder(id)).answer("go")

    def pid(self, id: str) -> int:
        monitor = self._monitor(id)
        if not monitor:
            return 0
        try:
            children = Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    def known(self) -> set[str]:
        return {folder.name for folder in self._root.iterdir()} if self._root.exists() else set()

    def running(self) -> set[str]:
        return {id for id in self.known() if self._monitor(id)}

    async def kill(self, id: str) -> None:
        Hold(self.folder(id)).answer("no")
        if pid := self.pid(id):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(_thaw, id)
        try:
            await asyncio.wait_for(self.wait_exit(id), 10)
        except TimeoutError:
            if monitor := self._monitor(id):
                os.kill(monitor, signal.SIGKILL)

    async def shutdown(self, id: str) -> bool:
        pid = self.pid(id)
        if not pid:
            raise WrongState("NOT_RUNNING", "The instance is not running", about=id)
        if own := await asyncio.to_thread(_stop_signal, self.folder(id)):
            is_ready = own == signal.SIGKILL or await inits.listens(pid)
            os.kill(pid, own)
            return is_ready
        os.kill(pid, _POWEROFF_SYSTEMD if _is_systemd(pid) else signal.SIGPWR)
        return False

    async def wait_exit(self, id: str) -> ExitRecord:
        monitor, init = self._monitor(id), self._inits.copy(id, self.pid(id))
        try:
            if monitor:
                await gone(monitor)
            record = await asyncio.to_thread(_exit_record, self.folder(id) / "exit")
            status = wait_status(init) if init >= 0 else None
            return replace(record, is_failure=is_failure(status), code=exit_code(status))
        finally:
            if init >= 0:
                os.close(init)

    def exec_config(self, id: str) -> bytes:
        return (self.folder(id) / "lxc.conf").read_bytes()

    def exec_argv(self, id: str, plan: ExecPlan, *, terminal: bool, config: Path | None = None) -> list[str]:
        argv = ["setsid", "-c"] if terminal else []
        argv += ["lxc-attach", "-n", id, "-P", str(self._root)]
        argv += ["-f", str(config or self.folder(id) / "lxc.conf")]
        # FATAL: whatever -q says, errors of a higher priority would go to the command's own stderr.
        argv += ["-q", "-l", "FATAL", "-o", str(self.folder(id) / "attach.log"), "--clear-env"]
        for name, value in plan.env.items():
            argv += ["-v", f"{rendering.name(name)}={value}"]
        argv += ["-u", str(plan.uid), "-g", str(plan.gid), "--"]
        if plan.cwd in ("", "/"):
            return [*argv, *plan.command]
        # lxc-attach has no option for the folder; the shell changes it and replaces itself.
        enter = 'cd "$0" 2>/dev/null; exec "$@"'
        return [*argv, "/bin/sh", "-c", enter, plan.cwd, *plan.command]

    def program(self, argv: list[str]) -> str:
        return self._sealed.path(argv[0]) if argv[0].startswith("lxc-") else argv[0]

    def console_argv(self, id: str) -> list[str]:
        return ["setsid", "-c", "lxc-console", "-n", id, "-P", str(self._root), "-t", "0", "-e", "-1"]

    async def remove(self, id: str) -> None:
        self._inits.let_go(id)
        await asyncio.to_thread(shutil.rmtree, self.folder(id), ignore_errors=True)

    def _install_helpers(self) -> None:
        """Copy hook and policy to a place that outlives the checkout; liblxc needs them at stop."""
        self._helpers.mkdir(mode=0o755, parents=True, exist_ok=True)
        sources = {name: _HERE / name for name in ("post-stop", "start-host", "seccomp.policy")}
        if _INIT.exists():
            sources["init"] = _INIT
        for name, source in sources.items():
            target = self._helpers / name
            new = self._helpers / f"{name}.new"
            shutil.copyfile(source, new)
            new.chmod(0o755)
            new.rename(target)

    def _prepare(self, plan: EnginePlan) -> Path:
        self._inits.let_go(plan.id)
        folder = self.folder(plan.id)
        folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        text = rendering.render(
            plan,
            folder,
            seccomp=self._policy(plan, folder),
            hook=self._helpers / "post-stop",
            v2=self._v2,
            udev=plan.hears_of_devices and has_any(plan.rootfs, _UDEV),
        )
        fd = os.open(folder / "lxc.conf", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        for stale in ("exit", "monitor.pid", "lxc.log", "console.log"):
            (folder / stale).unlink(missing_ok=True)
        if plan.is_held:
            Hold(folder).make()
        if plan.application:
            self._ready_init(plan, folder)
        return folder

    def _ready_init(self, plan: EnginePlan, folder: Path) -> None:
        """Raises: NotFound."""
        ours = self._helpers / "init"
        if not ours.exists():
            raise NotFound("NO_INIT", f"{_INIT} was not found; install Debian's package tini and restart")
        if (own := rendering.init_of(plan, folder, self._helpers / "post-stop")) != ours:
            shutil.copy2(ours, own)

    def _policy(self, plan: EnginePlan, folder: Path) -> Path:
        """Return the filter of system calls: its own, which commands inside read as well, or that of all."""
        own = folder / "seccomp.policy"
        own.unlink(missing_ok=True)
        if not plan.seccomp:
            return self._helpers / "seccomp.policy"
        own.write_text(plan.seccomp)
        return own

    def _monitor(self, id: str) -> int:
        """Return the monitor's pid, or 0. Its title is "[lxc monitor] PATH NAME"."""
        try:
            pid = int((self.folder(id) / "monitor.pid").read_text())
            title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
                return 0  # numbers come again, and a guest may call its processes what it wants
        except (OSError, ValueError):
            return 0
        return pid if "monitor" in title and f"{self._root} {id}" in title else 0


def _version() -> str:
    done = subprocess.run(["lxc-start", "--version"], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        raise NotFound("NO_ENGINE", "lxc-start was not found; install Debian's package lxc")
    return done.stdout.strip()


def _thaw(id: str) -> None:
    """Let a killed instance die: what cgroup v1 has frozen takes no signal, not even SIGKILL."""
    for path in folders(_FREEZER / id):
        with contextlib.suppress(OSError):
            Path(path, "freezer.state").write_text("THAWED")


def _stop_signal(folder: Path) -> int:
    """Return what asks the init of an application to end; 0 for that of a system."""
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "lxc.conf").read_text().splitlines():
            key, _, text = line.partition(" = ")
            if key == rendering.STOP_SIGNAL:
                return int(text)
    return 0


def _is_systemd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"
    except OSError:
        return True


def _exit_record(path: Path) -> ExitRecord:
    try:
        target, at = path.read_text().split()
        return ExitRecord(target if target in ("stop", "reboot") else "stop", float(at))
    except (OSError, ValueError):
        return ExitRecord("stop", time.time())


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").splitlines()
    return []


def _errors(folder: Path) -> list[str]:
    return [_WHERE.sub("", line) for line in _lines(folder / "lxc.log") if " ERROR " in line]


def _start_failed(folder: Path) -> WrongState:
    # The init of an application says on its console why there is none.
    said = [
        line.partition("] ")[2] for line in _lines(folder / "console.log") if line.startswith("[FATAL tini")
    ]
    why = [*_errors(folder), *said, "the engine gave no reason"][0]
    hint = ""
    if "inotify" in why:
        hint = "; raise fs.inotify.max_user_instances"
    if "newuidmap" in why or "newgidmap" in why:
        hint = "; let root map these ids in /etc/subuid and /etc/subgid"
    return WrongState("START_FAILED", f"The instance did not start: {why[:300]}{hint}")
