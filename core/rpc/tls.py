"""mTLS between members: the files, and what a peer's certificate says that it is.

The CA of the cluster (services/cluster/authority.py) signs two kinds. A member's certificate names its
host and may serve; a client's may only call. Both carry one id as a URI, in the form of SPIFFE:
spiffe://podium/member/NAME or spiffe://podium/client/NAME.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import grpc

_TRUST_DOMAIN = "spiffe://podium/"
MEMBER, CLIENT = "member", "client"


@dataclass(frozen=True)
class Peer:
    """Whose certificate a connection was opened with. kind: member, client, or "" for an unknown one."""

    kind: str
    name: str
    fingerprint: str


def id_of(kind: str, name: str) -> str:
    """Return the URI that a certificate of this *kind* carries."""
    return f"{_TRUST_DOMAIN}{kind}/{quote(name, safe='')}"


def peer_of(auth: Mapping[str, Sequence[bytes]]) -> Peer | None:
    """Return the peer in grpc's auth_context; None when the connection has no client certificate."""
    pem = next(iter(auth.get("x509_pem_cert", ())), b"").decode()
    if not pem:
        return None
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    ids = [uri.decode() for uri in auth.get("peer_uri", ())]
    kind, _, name = ids[0].removeprefix(_TRUST_DOMAIN).partition("/") if len(ids) == 1 else ("", "", "")
    if kind not in (MEMBER, CLIENT) or not ids[0].startswith(_TRUST_DOMAIN):
        return Peer("", "", fingerprint)
    return Peer(kind, unquote(name), fingerprint)


def server_credentials(folder: Path) -> grpc.ServerCredentials:
    """Return what a listener needs to demand certificates of the CA. Raises: OSError."""
    ca, certificate, key = _files(folder)
    return grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)


def channel_credentials(folder: Path) -> grpc.ChannelCredentials:
    """Return what this member needs to call another one. Raises: OSError."""
    ca, certificate, key = _files(folder)
    return grpc.ssl_channel_credentials(ca, key, certificate)


def etcd_credentials(folder: Path) -> grpc.ChannelCredentials:
    """Return what this member needs to ask another one's etcd. Raises: OSError.

    Its CA is another one, which signs members only: whoever reads the state is root of all of them.
    """
    ca, certificate, key = (
        (folder / name).read_bytes() for name in ("etcd-ca.crt", "etcd.crt", "member.key")
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _files(folder: Path) -> tuple[bytes, bytes, bytes]:
    ca, certificate, key = ((folder / name).read_bytes() for name in ("ca.crt", "member.crt", "member.key"))
    return ca, certificate, key
