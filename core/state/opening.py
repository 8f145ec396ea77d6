"""Open the state as this member does: its own etcd, and in a cluster the others' when that is away."""

from __future__ import annotations

from core import membership
from core.rpc.tls import etcd_credentials
from core.settings import Settings
from core.state.etcd import EtcdStore
from core.state.etcdlines import Others


def open_store(settings: Settings, service: str) -> EtcdStore:
    others = None
    if settings.cluster:
        others = Others(
            lambda: membership.endpoints(settings.run_dir), lambda: etcd_credentials(settings.tls_dir)
        )
    return EtcdStore(settings.etcd_endpoint, member=settings.member, service=service, others=others)
