"""Each process's own metrics, for Prometheus: prometheus-client counts, this shows.

The package's own way to show them is a web server with a thread; importing that costs every
process 3 MB. Text and server here are small, and a test compares the text with the package's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from core.logs import get_logger
from core.slim import bare_package

bare_package("prometheus_client")

from prometheus_client import gc_collector, platform_collector, process_collector  # noqa: E402
from prometheus_client.metrics import Counter, Histogram, disable_created_metrics  # noqa: E402
from prometheus_client.metrics_core import GaugeMetricFamily  # noqa: E402
from prometheus_client.registry import REGISTRY, CollectorRegistry  # noqa: E402
from prometheus_client.samples import Sample  # noqa: E402
from prometheus_client.utils import floatToGoString  # noqa: E402

__all__ = ["REGISTRY", "REQUESTS", "RPC_SECONDS", "GaugeMetricFamily", "render", "start_metrics"]
log = get_logger(__name__)
# Importing these registers what they collect.
_COLLECTED = (gc_collector, platform_collector, process_collector)
_MAX_REQUEST, _PATIENCE_S = 16 << 10, 10.0
disable_created_metrics()  # type: ignore[no-untyped-call]
RPC_SECONDS = Histogram(
    "podium_rpc_seconds",
    "Time a unary gRPC method took",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
REQUESTS = Counter("podium_rest_requests_total", "REST requests answered", ["method", "status"])


def render(registry: CollectorRegistry = REGISTRY) -> str:
    """Return what *registry* holds in Prometheus' text format, version 0.0.4."""
    return "".join(_lines(registry))


def _lines(registry: CollectorRegistry) -> Iterator[str]:
    for metric in registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        name = f"{name}_info" if metric.type == "info" else name
        kind = {"info": "gauge", "unknown": "untyped"}.get(metric.type, metric.type)
        yield f"# HELP {name} {_escaped(metric.documentation)}\n# TYPE {name} {kind}\n"
        for sample in metric.samples:
            yield _sample(sample)


def _sample(sample: Sample) -> str:
    number = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
    labels = ",".join(f'{key}="{_quoted(value)}"' for key, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}} {number}\n" if labels else f"{sample.name} {number}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


async def start_metrics(port: int, host: str = "127.0.0.1") -> None:
    """Serve /metrics while the loop runs. A port that is taken is said, not fatal."""
    try:
        await asyncio.start_server(_answer, host, port, limit=_MAX_REQUEST)
    except OSError as exc:
        log.warning("metrics_port_taken", port=port, error=str(exc))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request and close. What asks here is a scraper on this host."""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_reply(head))
            await writer.drain()
    writer.close()


def _reply(head: bytes) -> bytes:
    words = head.split(b"\r\n", 1)[0].split()
    is_known = len(words) == 3 and words[1].split(b"?")[0] in (b"/metrics", b"/")
    status = "404 Not Found"
    if is_known:
        status = "200 OK" if words[0] in (b"GET", b"HEAD") else "405 Method Not Allowed"
    body = render().encode() if status == "200 OK" else f"{status}\n".encode()
    headers = f"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {len(body)}"
    text = f"HTTP/1.1 {status}\r\n{headers}\r\nConnection: close\r\n\r\n".encode()
    return text if words and words[0] == b"HEAD" else text + body
