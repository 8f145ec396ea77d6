"""What `make compose-test` does in its namespaces: up, launch with the stock client, restart, down."""

from __future__ import annotations

import json
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

from core.settings import SERVICES, Settings
from deploy import up
from deploy.compose.client import Client
from deploy.compose.engine import Docker, engine, isolate
from deploy.rest import Rest

_DEADLINE_S = 540
_TARGETS = "http://127.0.0.1:9090/api/v1/targets"
_CHECKED = {"etcd", *SERVICES, "prometheus"}


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
    return all("(healthy)" in states.get(name, "") for name in _CHECKED)


def is_scraped() -> bool:
    with urllib.request.urlopen(_TARGETS, timeout=5) as reply:
        targets: list[dict[str, Any]] = json.load(reply)["data"]["activeTargets"]
    up = {t["labels"]["job"] for t in targets if t["health"] == "up"}
    return up == {"etcd", *SERVICES}


def bring_up(docker: Docker) -> None:
    docker.compose("up", "-d", timeout_s=180)
    until("healthy services", lambda: is_healthy(docker), 60)


def prepare(client: Client, work: Path) -> str:
    """Trust the client, import the image, make pool, network and profile; return the pool's driver."""
    client.add_remote()
    client.lxc("image", "import", str(work / "debian-12.tar.gz"), "pod:", "--alias", "debian/12")
    rest = Rest(client.state_dir / "unix.socket", timeout=120)
    up.ensure_defaults(rest, Settings.from_env({}))
    return str(rest.call("GET", "/1.0/storage-pools/default")["driver"])


def use(docker: Docker, client: Client) -> None:
    with step("Launched a container over HTTPS"):
        client.launch()
    with step("It runs, has the address that is listed, and reaches beyond the pod"):
        until("an address", client.has_address, 30)
        client.inside("true")
        until("an answer from outside", lambda: client.reaches(docker.gateway()), 15)
    with step("It is booted, and a memory limit holds"):
        client.inside("systemctl", "is-system-running", "--wait")
        client.check_limit()


def restart(docker: Docker, client: Client) -> None:
    with step("Network, image, cluster and gateway restarted; the container goes on"):
        began = client.init_began()
        docker.compose("restart", "network", "image", "cluster", "gateway")
        until("healthy services", lambda: is_healthy(docker), 60)
        if client.init_began() != began:
            raise RuntimeError("the container's init was started again")
        until("an answer from outside", lambda: client.reaches(docker.gateway()), 15)
    with step("All stopped and up again; the container is there and starts"):
        docker.compose("stop")
        bring_up(docker)
        client.start()
        until("an address", client.has_address, 30)


def take_down(docker: Docker) -> None:
    docker.compose("down", "-v", timeout_s=120)
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    left = docker.docker("ps", "-aq").split() + docker.docker("volume", "ls", "-q").split()
    left += [link["ifname"] for link in links if link["ifname"] not in ("lo", "docker0")]
    if left:
        raise RuntimeError(f"down -v left {left}")


def run(docker: Docker, work: Path) -> None:
    with step("Image built"):
        docker.compose("build", timeout_s=240)
    with step("All services healthy"):
        bring_up(docker)
    client = Client(work, docker.volume("state"))
    with step("Remote added with a trust token; image, pool, network and profile made"):
        driver = prepare(client, work)
    print(f"    the pool's driver is {driver}")
    use(docker, client)
    with step("Prometheus sees every process"):
        until("all targets up", is_scraped, 30)
    restart(docker, client)
    with step("Container deleted"):
        client.delete()
    with step("Taken down"):
        take_down(docker)


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
            run(docker, work)
        except Exception as exc:
            print(f"failed: {exc}", file=sys.stderr)
            report(docker, work)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
