"""Keep a member's processes running: start, restart with back-off, stop in order. Needs no systemd.

    python -m deploy.supervisor [--foreground]

Containers belong to their lxc monitors and DHCP to dnsmasq, both in sessions of their own: stopping
or killing the supervisor touches neither. `run/supervisor.json` always tells which pid is what.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from core.files import replace_file
from core.settings import Settings
from deploy import lxcfs
from deploy.etcd import etcd_argv
from deploy.privileges import confined, interpreter, python_environment
from deploy.rest import RestError, stop_instances
from deploy.turns import supervise

_MOST_PAUSE_S = float(os.environ.get("PODIUM_RESTART_PAUSE_S", "5"))
_BACKOFF_S = (min(0.2, _MOST_PAUSE_S), _MOST_PAUSE_S)
_STABLE_S = 10.0
_STOP_S = 10.0
_LOG_LIMIT = 32 << 20


@dataclass(frozen=True)
class Program:
    """What to run. caps: None for root, else the ambient capabilities of user podium."""

    name: str
    argv: tuple[str, ...]
    caps: tuple[str, ...] | None = ()


def programs(settings: Settings) -> list[Program]:
    """Return the processes of a member in the order they start."""
    network = ("net_admin", "net_bind_service", "net_raw")
    has_etcd = not settings.cluster or settings.cluster.etcd
    return [
        *([Program("etcd", etcd_argv(settings))] if has_etcd else []),
        Program("cluster", ("-m", "services.cluster")),
        Program("image", ("-m", "services.image")),
        Program("network", ("-m", "services.network"), network),
        Program("runtime", ("-m", "services.runtime"), None),
        Program("gateway", ("-m", "gateway")),
    ]


class Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        closing: list[asyncio.Task[None]] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        # Power fails, or whoever runs this shuts the host down: as with LXD, instances stop first.
        loop.add_signal_handler(signal.SIGPWR, lambda: closing.append(loop.create_task(self._close(stop))))
        first = [p for p in programs(self._settings) if p.name == "etcd"]
        tasks = [asyncio.create_task(self._keep(p), name=p.name) for p in first]
        try:
            # Before the first guest starts: what reads its memory once, early, should not see the host's.
            await asyncio.gather(self._bootstrap(stop), lxcfs.begin(self._settings))
            keeping = lxcfs.keep(self._settings, pause_s=_BACKOFF_S[0])
            tasks.append(asyncio.create_task(keeping, name="lxcfs"))
            if not stop.is_set():
                then = [p for p in programs(self._settings) if p.name != "etcd"]
                tasks += [asyncio.create_task(self._keep(p), name=p.name) for p in then]
            await stop.wait()
        finally:
            self._stopping = True
            self._tell()
            await self._stop_all()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self, stop: asyncio.Event) -> None:
        """Stop all instances in their order, then the services."""
        try:
            for line in await asyncio.to_thread(stop_instances, self._settings.socket_path):
                print(f"not stopped: {line}", flush=True)
        except (RestError, OSError) as exc:
            print(f"instances were not stopped: {exc}", flush=True)
        stop.set()

    async def _bootstrap(self, stop: asyncio.Event) -> None:
        """Wait for etcd, then make certificates and defaults; they are there already but once."""
        url = f"http://127.0.0.1:{self._settings.metrics_port('etcd')}/health"
        # In a cluster another one's etcd does as well.
        if not self._settings.cluster:
            while not stop.is_set() and not await asyncio.to_thread(_is_healthy, url):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        pause_s = _BACKOFF_S[0]
        # Again and again, as with any other process: etcd on a busy disk may be slow to answer at first.
        while not stop.is_set() and await self._bootstrap_once():
            print("bootstrap failed; see logs/bootstrap.log", flush=True)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _BACKOFF_S[1])

    async def _bootstrap_once(self) -> int:
        with self._log("bootstrap") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.cluster.bootstrap", stdout=log, stderr=log
            )
        return await process.wait()

    async def _keep(self, program: Program) -> None:
        pause_s = _BACKOFF_S[0]
        while not self._stopping:
            began = time.monotonic()
            with contextlib.suppress(OSError):  # no room for its log, or no process to be had: try again
                await self._run_once(program)
            if time.monotonic() - began > _STABLE_S:
                pause_s = _BACKOFF_S[0]
            if not self._stopping:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _BACKOFF_S[1])

    async def _run_once(self, program: Program) -> None:
        argv = list(program.argv)
        if program.name != "etcd":
            argv.insert(0, interpreter(self._settings)[0])
        with self._log(program.name) as log:
            process = await asyncio.create_subprocess_exec(
                *confined(argv, program.caps, self._settings.group),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=python_environment(self._settings),
                cwd=self._settings.run_dir if program.name == "etcd" else "/",
            )
        self._running[program.name] = process
        self._tell()
        await process.wait()
        self._running.pop(program.name, None)
        self._tell()

    async def _stop_all(self) -> None:
        for program in reversed(programs(self._settings)):
            process = self._running.get(program.name)
            if process is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    def _tell(self) -> None:
        """Write down which pid is what; where there is no room, again until there is."""
        try:
            self._write_down()
        except OSError:
            asyncio.get_running_loop().call_later(_BACKOFF_S[1], self._tell)

    def _write_down(self) -> None:
        path = self._settings.run_dir / "supervisor.json"
        processes = {name: process.pid for name, process in self._running.items()}
        body = {"supervisor": os.getpid(), "processes": processes, "is_stopping": self._stopping}
        replace_file(path, json.dumps(body))

    def _log(self, name: str) -> contextlib.AbstractContextManager[int]:
        path = self._settings.state_dir / "logs" / f"{name}.log"
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.rename(path.with_suffix(".log.1"))
        return _descriptor(path)


@contextlib.contextmanager
def _descriptor(path: Path):  # type: ignore[no-untyped-def]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:  # noqa: S310 - our own loopback etcd
            return bool(json.load(reply).get("health") == "true")
    except (OSError, ValueError):
        return False


def find_running(settings: Settings) -> int:
    """Return the pid of this member's supervisor, or 0."""
    try:
        pid = int(json.loads((settings.run_dir / "supervisor.json").read_text())["supervisor"])
        cmdline = Path(f"/proc/{pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except (OSError, ValueError, KeyError):
        return 0
    ours = f"PODIUM_DIR={settings.state_dir}".encode() in environ.split(b"\0")
    return pid if ours and b"deploy.supervisor" in cmdline else 0


def running(settings: Settings) -> list[int]:
    """Return the pids of this member's processes, those that others need last."""
    try:
        noted = json.loads((settings.run_dir / "supervisor.json").read_text())["processes"]
    except (OSError, ValueError, KeyError):
        return []
    return [
        int(noted[p.name])
        for p in reversed(programs(settings))
        if p.name in noted and _is_ours(int(noted[p.name]), p, settings)
    ]


def end_leftovers(settings: Settings) -> bool:
    """End what a killed supervisor left running, since that has the locks and ports; tell whether it did."""
    left = running(settings)
    for pid in left:
        _end(pid)
    return bool(left)


def _is_ours(pid: int, program: Program, settings: Settings) -> bool:
    """Return whether *pid* still is *program* of this member, and no later process of that number."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return program.argv[-1] in words and f"PODIUM_DIR={settings.state_dir}".encode() in environ


def _end(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
            if select.select([fd], [], [], _STOP_S)[0]:
                return
    finally:
        os.close(fd)


def _allow_descriptors() -> None:
    """Let every process have as many as the host lets root: 1024 are taken by one client that wants to."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.supervisor")
    parser.add_argument("--foreground", action="store_true")
    args = parser.parse_args()
    settings = Settings.from_env()
    place = _place(settings)
    if place is None:
        return 0
    if not args.foreground and os.fork():
        return 0
    if not args.foreground:
        os.setsid()
        if os.fork():
            os._exit(0)
        with _descriptor(settings.state_dir / "logs" / "supervisor.log") as fd:
            null = os.open("/dev/null", os.O_RDONLY)
            for source, target in ((null, 0), (fd, 1), (fd, 2)):
                os.dup2(source, target)
    os.umask(0o022)  # whatever that of the shell
    _take_signals()
    _allow_descriptors()
    end_leftovers(settings)
    asyncio.run(Supervisor(settings).run())
    os.close(place)
    return 0


def _place(settings: Settings) -> int | None:
    """Return the place of this member's supervisor, waiting for one that stops; None while one is at work."""
    end = time.monotonic() + _STOP_S * len(programs(settings))
    while (place := supervise(settings.state_dir)) is None:
        if find_running(settings) and not _is_stopping(settings):
            return None
        if time.monotonic() > end:
            raise SystemExit(f"The supervisor of {settings.state_dir} neither begins nor ends; see its log")
        time.sleep(0.05)
    if find_running(settings):  # one of a version that knew no places
        os.close(place)
        return None
    return place


def _is_stopping(settings: Settings) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((settings.run_dir / "supervisor.json").read_text()).get("is_stopping"))
    return False


def _take_signals() -> None:
    """Let signals do what they do, for all that is started from here: guests inherit what is ignored.

    A shell has what it starts in the background ignore SIGINT and SIGQUIT, nohup(1) SIGHUP; no program in
    an instance could be interrupted then, nor end by such a stop signal.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


if __name__ == "__main__":
    raise SystemExit(main())
