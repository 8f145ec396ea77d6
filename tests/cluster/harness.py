"""Clusters on one machine: each member a whole Podium in a network namespace of its own, all on one bridge.

    with cluster("m1", "m2", "m3") as found:
        found["m1"].lxc("launch", "debian/12", "c1", "--target", "m2")

A member has its own state folder, etcd, ports (the default ones, in its own namespace) and `lan0` with an
address of a subnet that nobody else here has; the test itself has one on the bridge, so that it reaches
every member's REST API. The first member founds the cluster, the others join it by token. The image that
`make up` builds is known as debian/12 to all; its files lie on the first member only, from which others
fetch them, unless images="copied" puts them on each before it starts. All is removed at the end, and
nothing of the host's own network is touched.

`Member` is tests.e2e.conftest.Podium with the namespace: `member.inside("ip", "addr")` runs a program there.
`member.stop()` ends its services (instances go on), `member.kill()` by SIGKILL and at once, `member.start()`
brings them back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.settings import Settings
from deploy.privileges import ROOT
from deploy.rest import Rest
from tests.e2e.conftest import Podium

_UP = """
from core.settings import Settings
from deploy import up
settings = Settings.from_env()
rest = up.start(settings)
up.ensure_defaults(rest, settings)
up.ensure_image(rest)
"""
_START = "from core.settings import Settings; from deploy import up; up.start(Settings.from_env())"
_JOIN = """
import sys
from core.settings import Settings
from deploy import cluster
cluster.join(Settings.from_env(), sys.argv[1])
"""
_DOWN = "from core.settings import Settings; from deploy import down; down.stop(Settings.from_env())"
# liblxc and others ask /sys for interfaces; all else below it stays as it is.
_SYS = """
mkdir "$1" && mount -t sysfs sysfs "$1"
for folder in class/net devices/virtual/net; do mount --bind "$1/$folder" "/sys/$folder"; done
"""
_PURGE = "from core.settings import Settings; from deploy.purge import purge; purge(Settings.from_env())"


@dataclasses.dataclass
class Member(Podium):
    """One member. address: its IPv4 address on the bridge of all; namespace: as `ip netns` names it.

    mounts: the file that keeps its mount namespace, where /sys tells of its own interfaces.
    """

    name: str = ""
    address: str = ""
    namespace: str = ""
    mounts: Path = Path()

    def inside(self, *argv: str, timeout: float = 180) -> str:
        """Run a program in the member's namespaces, as root, and return its output."""
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.namespace}", f"--mount={self.mounts}", "--", *argv],
            capture_output=True,
            timeout=timeout,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            cwd="/",
            check=False,
        )
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, f"{self.name}: {' '.join(argv)[:200]}: {said[-3000:]}"
        return done.stdout.decode()

    def python(self, code: str, *words: str) -> str:
        return self.inside(sys.executable, "-c", code, *words)

    def start(self) -> None:
        """Run its services (again); return when they answer."""
        self.python(_START)

    def stop(self) -> None:
        """End its services and its etcd; its instances go on."""
        self.python(_DOWN)

    def kill(self) -> None:
        """End supervisor and services at once, as a power failure would; instances go on."""
        import json

        found = json.loads((self.settings.run_dir / "supervisor.json").read_text())
        for pid in (found["supervisor"], *found["processes"].values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def unplug(self) -> None:
        """Take its cable out: it lives, and nobody reaches it."""
        _ip("link", "set", _host_end(self.namespace), "down")

    def plug(self) -> None:
        _ip("link", "set", _host_end(self.namespace), "up")


class Cluster(dict[str, Member]):
    """Members by name, in the order in which they joined."""

    @property
    def first(self) -> Member:
        return next(iter(self.values()))


@contextlib.contextmanager
def cluster(*names: str, images: str = "first") -> Iterator[Cluster]:
    """Run a cluster of members of these names for the block."""
    folder = Path(tempfile.mkdtemp(prefix="podium-cluster-", dir="/var/tmp"))
    folder.chmod(0o755)
    members = Cluster()
    with _kept(folder / "mounts"):
        yield from _running(members, folder, names, images)


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Be a place for mount namespaces, which lie on private mounts only; remove it with all in it."""
    folder.mkdir()
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "--make-private", folder], check=True)
    try:
        yield
    finally:
        for path in (*folder.iterdir(), folder):
            subprocess.run(["umount", "--lazy", path], capture_output=True, check=False)
        shutil.rmtree(folder.parent, ignore_errors=True)


def _running(members: Cluster, folder: Path, names: tuple[str, ...], images: str) -> Iterator[Cluster]:
    bridge = f"pcb{secrets.token_hex(3)}"
    subnet = _free_subnet()
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{subnet}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number, name in enumerate(names, 1):
            members[name] = _member(folder, bridge, name, f"{subnet}.{number}")
            _build(members[name], bridge)
        _raise(members, images)
        yield members
    finally:
        if sys.exc_info()[0] or os.environ.get("PODIUM_KEEP_LOGS"):
            for member in members.values():
                with contextlib.suppress(OSError):
                    kept = Path("/var/tmp/podium-last-logs") / member.name
                    shutil.copytree(member.state_dir / "logs", kept, dirs_exist_ok=True)
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(_remove, members.values()))
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


def _raise(members: Cluster, images: str) -> None:
    founder, *others = members.values()
    founder.python(_UP)
    if not others:
        return
    founder.inside(sys.executable, "-m", "deploy.cluster", "enable")
    with ThreadPoolExecutor(len(others)) as pool:
        starting = []
        for member in others:
            _admit(founder, member, images)
            starting.append(pool.submit(member.start))
        for start in starting:
            start.result()


def join(founder: Member, member: Member, *, images: str = "first") -> None:
    """Let *member*, which runs nothing yet, into the cluster of *founder*, and run it."""
    _admit(founder, member, images)
    member.start()


def _admit(founder: Member, member: Member, images: str) -> None:
    token = founder.lxc("cluster", "add", member.name).split()[-1]
    member.python(_JOIN, token)
    if images == "copied":
        _copy_images(founder, member)
    wait_for(lambda: f"{member.name}," in founder.lxc("cluster", "list", "-f", "csv"))


def _copy_images(source: Member, target: Member) -> None:
    for name in ("blobs", "squashfs"):
        folder = target.state_dir / "images" / name
        subprocess.run(["cp", "-a", "--reflink=auto", source.state_dir / "images" / name, folder], check=True)


def wait_for(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    """Return when it *holds*; fail when it does not in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not come to hold in time"
        time.sleep(0.1)


def _member(folder: Path, bridge: str, name: str, address: str) -> Member:
    namespace = f"{bridge}-{name}"
    state = folder / name
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PODIUM_", "LXD_"))},
        "PODIUM_DIR": str(state),
        "PODIUM_MEMBER": name,
        "PODIUM_BRIDGE": f"{bridge}i",
        "PODIUM_HTTPS": f"{address}:8443",
        "PODIUM_RPC": f"{address}:9470",
    }
    settings = Settings.from_env(environment)
    conf = folder / f"{name}-conf"
    conf.mkdir()
    member = Member(settings, environment, Rest(settings.socket_path), conf)
    member.name, member.address, member.namespace = name, address, namespace
    member.mounts = folder / "mounts" / name
    return member


def _build(member: Member, bridge: str) -> None:
    """Make its namespaces, and connect it."""
    namespace = member.namespace
    _ip("netns", "add", namespace)
    outer = _host_end(namespace)
    _ip("link", "add", outer, "type", "veth", "peer", "name", "lan0", "netns", namespace)
    _ip("link", "set", outer, "master", bridge, "up")
    for words in (
        ("link", "set", "lo", "up"),
        ("addr", "add", f"{member.address}/24", "dev", "lan0"),
        ("link", "set", "lan0", "up"),
    ):
        _ip("-n", namespace, *words)
    member.mounts.touch()
    argv = ["nsenter", f"--net=/run/netns/{namespace}", "unshare", f"--mount={member.mounts}"]
    words = ["--propagation=slave", "sh", "-ec", _SYS, "sh", f"{member.mounts}-sys"]
    subprocess.run([*argv, *words], check=True)


def _host_end(namespace: str) -> str:
    """Return the name of a member's port on the bridge, which has at most 15 characters."""
    return f"{namespace.replace('-', '')[3:]}"[:14] + "p"


def _remove(member: Member) -> None:
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        member.python(_PURGE)
    for argv in (
        ["ip", "link", "del", _host_end(member.namespace)],
        ["ip", "netns", "del", member.namespace],
    ):
        subprocess.run(argv, capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _free_subnet() -> str:
    """Return the first three numbers of a subnet that no route of the host leads to."""
    taken = subprocess.run(["ip", "-4", "route"], capture_output=True, check=True, text=True).stdout
    while True:
        found = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        if f"{found}." not in taken:
            return found
