"""How a member's etcd is started: on unix sockets alone, and in a cluster also for the others, over mTLS."""

from __future__ import annotations

from core.membership import Membership
from core.settings import ETCD_SOCKET, Settings

# A killed etcd leaves its sockets behind, and the next one would not start over them.
_WITHOUT_STALE_SOCKETS = ("sh", "-c", 'rm -f etcd*.sock:*; exec "$0" "$@"')


def etcd_argv(settings: Settings) -> tuple[str, ...]:
    """Return etcd's command. Its sockets are named relative to its folder: it takes no paths in URLs."""
    return (
        *_WITHOUT_STALE_SOCKETS,
        "etcd",
        f"--data-dir={settings.state_dir / 'etcd'}",
        "--max-txn-ops=4096",  # an instance goes with its snapshots, a profile gets a name in all users
        "--max-request-bytes=8388608",
        *(_joined(settings, settings.cluster) if settings.cluster else _alone(settings)),
        f"--listen-metrics-urls=http://127.0.0.1:{settings.metrics_port('etcd')}",
        "--auto-compaction-retention=1h",
        "--quota-backend-bytes=4294967296",
        "--logger=zap",
        "--log-level=warn",
    )


def _alone(settings: Settings) -> tuple[str, ...]:
    client, peer = f"unix://{ETCD_SOCKET}", "unix://etcd-peer.sock:2380"
    if not settings.etcd_endpoint.startswith("unix:"):
        host, port = settings.etcd_endpoint.rsplit(":", 1)
        client, peer = f"http://{host}:{port}", f"http://{host}:{int(port) + 1}"
    return (
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    )


def _joined(settings: Settings, cluster: Membership) -> tuple[str, ...]:
    """The one that began has its data, so that it reads nothing of --initial-cluster but the form."""
    client, peer = f"https://{cluster.etcd_client}", f"https://{cluster.etcd_peer}"
    tls = settings.tls_dir
    return (
        f"--name={cluster.member}",
        f"--listen-client-urls=unix://{ETCD_SOCKET},{client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={cluster.first_peers or f'{cluster.member}={peer}'}",
        f"--initial-cluster-state={'existing' if cluster.first_peers else 'new'}",
        *_tls("", tls),
        *_tls("peer-", tls),
    )


def _tls(side: str, folder: object) -> tuple[str, ...]:
    return (
        f"--{side}cert-file={folder}/etcd.crt",
        f"--{side}key-file={folder}/member.key",
        f"--{side}trusted-ca-file={folder}/etcd-ca.crt",
        f"--{side}client-cert-auth",
    )
