"""What `make compose-test` does in its namespaces: up, healthy, launch with the stock client, down, nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from core.settings import Settings
from deploy import up
from deploy.compose.engine import Docker, engine, isolate
from deploy.rest import Rest

_DEADLINE_S = 540
_NAME = "pod:inside"
_TARGETS = "http://127.0.0.1:9090/api/v1/targets"


class Client:
    """The stock client: by the socket in the volume, or by the remote "pod", the published HTTPS port."""

    def __init__(self, work: Path, state_dir: Path) -> None:
        (work / "lxc").mkdir()
        own = {"LXD_DIR": str(state_dir), "LXD_CONF": str(work / "lxc"), "HOME": str(work)}
        self._environment = {**os.environ, **own}

    def lxc(self, *args: str) -> str:
        done = subprocess.run(
            ["lxc", *args],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise RuntimeError(f"lxc {' '.join(args[:3])}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def add_remote(self) -> None:
        token = self.lxc("config", "trust", "add", "--name", "trial").strip().splitlines()[-1]
        self.lxc("remote", "add", "pod", "https://127.0.0.1:8443", "--accept-certificate", "--password", token)

    def address(self) -> str:
        """Return the IPv4 address of a container that runs and has one; empty until then."""
        found = json.loads(self.lxc("list", "pod:", "--format", "json"))
        state = next((c["state"] for c in found if c["status"] == "Running"), None) or {}
        nic = (state.get("network") or {}).get("eth0") or {}
        return next((a["address"] for a in nic.get("addresses", []) if a["family"] == "inet"), "")


@contextmanager
def step(text: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"==> {text} ({time.monotonic() - began:.1f} s)", flush=True)


def until(what: str, is_so: Callable[[], bool], timeout_s: float) -> None:
    """Return once *is_so*. Raises: RuntimeError naming *what* was waited for."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.3)


def is_healthy(docker: Docker) -> bool:
    states = docker.states()
    checked = [s for name, s in states.items() if name not in ("pod", "bootstrap")]
    return len(checked) == 7 and all("(healthy)" in s for s in checked)


def is_scraped() -> bool:
    with urllib.request.urlopen(_TARGETS, timeout=5) as reply:
        targets: list[dict[str, Any]] = json.load(reply)["data"]["activeTargets"]
    return len(targets) == 6 and all(t["health"] == "up" for t in targets)


def bring_up(docker: Docker) -> None:
    with step("Image built"):
        docker.compose("build", timeout_s=240)
    with step("All services healthy"):
        docker.compose("up", "-d", timeout_s=180)
        until("healthy services", lambda: is_healthy(docker), 60)


def use(client: Client, state_dir: Path, work: Path) -> None:
    """Launch a container as a user would, over HTTPS; every step must succeed."""
    with step("Remote added with a trust token; image, pool, network and profile made"):
        client.add_remote()
        client.lxc("image", "import", str(work / "debian-12.tar.gz"), "pod:", "--alias", "debian/12")
        rest = Rest(state_dir / "unix.socket", timeout=120)
        up.ensure_defaults(rest, Settings.from_env({}))
        driver = rest.call("GET", "/1.0/storage-pools/default")["driver"]
    with step(f"Launched on a {driver} pool"):
        client.lxc("launch", "pod:debian/12", _NAME)
    with step("Running with an address"):
        until("an address", lambda: bool(client.address()), 30)
        client.lxc("exec", _NAME, "--", "true")
    with step("Booted, and a limit holds"):
        client.lxc("exec", _NAME, "--", "systemctl", "is-system-running", "--wait")
        client.lxc("config", "set", _NAME, "limits.memory", "256MiB")
        check_limit(client)
    with step("Prometheus sees every process"):
        until("all targets up", is_scraped, 30)
    with step("Container deleted"):
        client.lxc("delete", "--force", _NAME)


def check_limit(client: Client) -> None:
    usage = client.lxc("info", _NAME)
    if "Memory (current)" not in usage:
        raise RuntimeError(f"no figures of its cgroup:\n{usage}")


def take_down(docker: Docker) -> None:
    with step("Taken down"):
        docker.compose("down", "-v", timeout_s=120)
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    left = docker.docker("ps", "-aq").split() + docker.docker("volume", "ls", "-q").split()
    left += [link["ifname"] for link in links if link["ifname"] not in ("lo", "docker0")]
    if left:
        raise RuntimeError(f"down -v left {left}")


def report(docker: Docker, work: Path) -> None:
    """Say what a failure needs to be understood; the folder is about to go."""
    for name, status in docker.states().items():
        print(f"{name}: {status}", file=sys.stderr)
    print(docker.compose("logs", "--no-color", "--tail", "20"), file=sys.stderr)
    print((work / "dockerd.log").read_text()[-2000:], file=sys.stderr)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("the trial took too long")


def main() -> int:
    work = Path(sys.argv[1])
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(_DEADLINE_S)
    isolate()
    with engine(work) as docker:
        try:
            bring_up(docker)
            state_dir = docker.volume("state")
            use(Client(work, state_dir), state_dir, work)
            take_down(docker)
        except Exception as exc:
            print(f"failed: {exc}", file=sys.stderr)
            report(docker, work)
            return 1
    print("==> Nothing is left; compose.yaml works.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
