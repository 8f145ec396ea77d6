"""A real etcd for the contract suites: one a session, its own ports and folder."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator

import pytest


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start_etcd(folder: str, client: int, peer: int) -> subprocess.Popen[bytes]:
    """Start etcd on loopback; returns when it answers."""
    url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    argv = ["etcd", "--data-dir", folder, "--listen-client-urls", url, "--advertise-client-urls", url]
    argv += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
    argv += ["--initial-cluster", f"default={peer_url}", "--unsafe-no-fsync", "--logger", "zap"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until_healthy(f"{url}/health")
    return process


def wait_until_healthy(url: str, timeout_s: float = 20.0) -> None:
    """Return when etcd has a leader; its port opens before that."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1) as reply:
                if json.load(reply).get("health") == "true":
                    return
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError(url)
        time.sleep(0.05)


@pytest.fixture(scope="session")
def etcd_endpoint() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="podium-etcd-", dir="/var/tmp")
    client = free_port()
    process = start_etcd(folder, client, free_port())
    yield f"127.0.0.1:{client}"
    process.terminate()
    process.wait(10)
    shutil.rmtree(folder, ignore_errors=True)
