"""A third party's gRPC client, as docs/grpc.md tells it to be written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Podium

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_example_lists_images(podium: Podium, tmp_path: Path) -> None:
    environment = {**podium.environment, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "cli", "admin", "client-cert", "me", str(tmp_path)]
    subprocess.run(argv, env=environment, cwd=ROOT, check=True)
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "grpc.md").read_text(), re.DOTALL)
    assert code
    program = code[1].replace("127.0.0.1:9472", podium.settings.rpc_address("image"))

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    fingerprint = podium.rest.call("GET", "/1.0/images/aliases/debian%2F12")["target"]
    assert fingerprint in done.stdout, done.stderr


def test_keys_are_for_those_who_need_them(podium: Podium) -> None:
    """The services run as user podium and must read the member's key; nobody but root the CA's."""
    owners = {path.name: path.owner() for path in podium.settings.tls_dir.glob("*.key")}
    modes = {oct(path.stat().st_mode & 0o777) for path in podium.settings.tls_dir.glob("*.key")}

    assert owners == {"ca.key": "root", "member.key": "podium", "server.key": "podium"}
    assert modes == {"0o600"}
