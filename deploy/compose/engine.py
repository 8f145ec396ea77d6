"""A Docker of the test's own. Call it in namespaces made for it (deploy/compose/test.py)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from deploy.privileges import ROOT

PROJECT = "podium-test"
_SOCKET = "unix:///run/docker.sock"
_READY_S = 60.0


class Docker:
    """The engine's clients: every call has a deadline in seconds and raises with what the client said."""

    def __init__(self, work: Path) -> None:
        self._work = work
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "COMPOSE_", "PODIUM_"))}
        # docker-compose 1.29 is the one that Debian has; it must not call a docker with BuildKit.
        self._environment = {
            **kept,
            "HOME": str(work),
            "DOCKER_HOST": _SOCKET,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "COMPOSE_PROJECT_NAME": PROJECT,
        }

    def docker(self, *args: str, timeout_s: float = 60) -> str:
        return self._run("docker", *args, timeout_s=timeout_s)

    def compose(self, *args: str, timeout_s: float = 120) -> str:
        return self._run("docker-compose", *args, timeout_s=timeout_s)

    def volume(self, name: str) -> Path:
        return self._work / "docker" / "volumes" / f"{PROJECT}_{name}" / "_data"

    def gateway(self) -> str:
        """Return the engine's own address on the containers' network: outside, as seen from an instance."""
        form = "{{(index .IPAM.Config 0).Gateway}}"
        return self.docker("network", "inspect", "-f", form, f"{PROJECT}_default").strip()

    def states(self) -> dict[str, str]:
        """Return the state of each service's container: its health where it has a check."""
        form = '{{.Label "com.docker.compose.service"}}|{{.Status}}'
        rows = self.docker("ps", "-a", "--format", form).splitlines()
        return {name: status for name, _, status in (row.partition("|") for row in rows)}

    def _run(self, *argv: str, timeout_s: float) -> str:
        done = subprocess.run(
            argv, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=timeout_s
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv[:4])}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout


def isolate() -> None:
    """Bring the loopback up and hide /run, where an engine of this machine would be found."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)


@contextlib.contextmanager
def engine(work: Path) -> Iterator[Docker]:
    """Run dockerd with everything below *work* and stop it at the end."""
    argv = ["dockerd", "-H", _SOCKET, f"--data-root={work}/docker", "--exec-root=/run/docker"]
    argv += ["--pidfile=/run/docker.pid", f"--cgroup-parent=/{work.name}"]
    with (work / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
    docker = Docker(work)
    try:
        _wait_ready(docker, process, work / "dockerd.log")
        yield docker
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_ready(docker: Docker, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            docker.docker("info", timeout_s=10)
            return
        except (RuntimeError, subprocess.TimeoutExpired) as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not start: {log.read_text()[-2000:]}") from exc
        time.sleep(0.2)
