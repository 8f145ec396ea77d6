"""Each process's own metrics, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Histogram, start_http_server

from core.logs import get_logger

log = get_logger(__name__)
RPC_SECONDS = Histogram(
    "podium_rpc_seconds",
    "Time a unary gRPC method took",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
REQUESTS = Counter("podium_rest_requests_total", "REST requests answered", ["method", "status"])


def start_metrics(port: int, host: str = "127.0.0.1") -> None:
    """Serve /metrics in a thread. A port that is taken is said, not fatal: the service matters more."""
    try:
        start_http_server(port, addr=host)
    except OSError as exc:
        log.warning("metrics_port_taken", port=port, error=str(exc))
