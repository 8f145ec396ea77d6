"""What /metrics says is what the package would have said, without the package's web server."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

import pytest

from core import metrics
from deploy.privileges import ROOT
from tests.contract.conftest import free_port

PACKAGE_SAYS = """
import prometheus_client as package
from core import metrics
registry = package.CollectorRegistry()
package.Counter("a_total", 'with "quotes"\\nand lines', ["x"], registry=registry).labels('q"\\n\\\\').inc(3)
package.Histogram("b_seconds", "h", ["m"], registry=registry).labels("n").observe(0.3)
package.Gauge("c", "g", registry=registry).set(float("inf"))
package.Info("d", "i", registry=registry).info({"version": "1"})
print(metrics.render(registry) == package.generate_latest(registry).decode())
"""


def run(code: str) -> str:
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_the_text_is_the_packages_own() -> None:
    """promtool and every scraper read that; ours must not drift from it."""
    assert run(PACKAGE_SAYS) == "True"


def test_the_packages_web_server_is_not_loaded() -> None:
    """It would cost each process 4 MB."""
    assert run("import sys, core.metrics; print('http.server' in sys.modules)") == "False"


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200"),
        (b"GET /metrics?name[]=x HTTP/1.0", b"200"),
        (b"HEAD /metrics HTTP/1.1", b"200"),
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"GET /etc/passwd HTTP/1.1", b"404"),
        (b"\xff\x00", b"404"),
    ],
)
async def test_requests_are_answered(request_line: bytes, status: bytes) -> None:
    await metrics.start_metrics(port := free_port())

    answer = await ask(port, request_line + b"\r\nHost: x\r\n\r\n")

    assert answer.split()[1] == status
    if request_line.startswith(b"GET /metrics"):
        assert b"process_resident_memory_bytes" in answer


async def test_an_endless_request_is_cut_off() -> None:
    await metrics.start_metrics(port := free_port())

    with contextlib.suppress(ConnectionResetError):
        assert await ask(port, b"GET /" + b"a" * (1 << 20)) == b""
