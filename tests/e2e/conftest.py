"""A throw-away Podium: own folder, ports and bridge, the same supervisor; purged at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.settings import Settings
from deploy import up
from deploy.purge import purge
from deploy.rest import Rest
from tests.contract.conftest import free_port

CACHE = Path("/var/cache/podium/images")


@dataclasses.dataclass
class Podium:
    """A running member and the stock client that talks to it."""

    settings: Settings
    environment: dict[str, str]
    rest: Rest
    conf: Path

    @property
    def state_dir(self) -> Path:
        return self.settings.state_dir

    def logs(self) -> list[Path]:
        return sorted((self.state_dir / "logs").glob("*.log"))

    def processes(self) -> dict[str, int]:
        found = json.loads((self.settings.run_dir / "supervisor.json").read_text())
        return dict(found["processes"])

    def run(self, *args: str, input: bytes = b"", timeout: float = 120) -> subprocess.CompletedProcess[bytes]:
        environment = {**self.environment, "LXD_DIR": str(self.state_dir), "LXD_CONF": str(self.conf)}
        return subprocess.run(
            ["lxc", *args], input=input, capture_output=True, timeout=timeout, env=environment, check=False
        )

    def lxc(self, *args: str, input: bytes = b"", timeout: float = 120) -> str:
        """Run the client and return its output; fail with what it said."""
        done = self.run(*args, input=input, timeout=timeout)
        assert done.returncode == 0, f"lxc {' '.join(args)}: {done.stderr.decode()}{done.stdout.decode()}"
        return done.stdout.decode()


@contextlib.contextmanager
def unharmed(podium: Podium) -> Iterator[None]:
    """Fail if any process ended or any log tells of a crash meanwhile."""
    processes, sizes = podium.processes(), {path: path.stat().st_size for path in podium.logs()}
    yield
    assert podium.processes() == processes
    for path in podium.logs():
        new = path.read_bytes()[sizes.get(path, 0) :]
        crashed = [line for line in new.splitlines() if b"crashed" in line or b"raceback" in line]
        assert not crashed, f"{path.name}: {crashed[0].decode()[:3000]}"


def _environment(folder: Path) -> dict[str, str]:
    metrics = 20000 + 10 * secrets.randbelow(2000)
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PODIUM_", "LXD_"))},
        "PODIUM_DIR": str(folder),
        "PODIUM_BRIDGE": f"pod{secrets.token_hex(3)}",
        "PODIUM_HTTPS": f"127.0.0.1:{free_port()}",
        "PODIUM_METRICS_PORT": str(metrics),
        "PODIUM_RPC": f"127.0.0.1:{metrics + 5}",
    }


@pytest.fixture(scope="session")
def podium() -> Iterator[Podium]:
    with running() as found:
        yield found


@contextlib.contextmanager
def running(**extra: str) -> Iterator[Podium]:
    """Run a Podium of its own for the block, with *extra* in the environment of its processes."""
    folder = Path(tempfile.mkdtemp(prefix="podium-e2e-", dir="/var/tmp"))
    environment = {**_environment(folder), **extra}
    settings = Settings.from_env(environment)
    conf = Path(tempfile.mkdtemp(prefix="podium-lxc-", dir="/var/tmp"))
    old = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        rest = up.start(settings)
        up.ensure_defaults(rest, settings)
        up.ensure_image(rest)
        yield Podium(settings, environment, rest, conf)
    finally:
        if sys.exc_info()[0] or os.environ.get("PODIUM_KEEP_LOGS"):
            shutil.copytree(folder / "logs", Path("/var/tmp/podium-last-logs"), dirs_exist_ok=True)
        purge(settings)
        os.environ.clear()
        os.environ.update(old)
        shutil.rmtree(conf, ignore_errors=True)
