"""Who calls: by the unix socket's peer, or by the certificate of the TLS connection."""

from __future__ import annotations

import hashlib
import pwd
import socket
import struct
from dataclasses import dataclass
from functools import lru_cache

from aiohttp import web

from core.errors import Forbidden
from core.rpc.identity import Identity
from core.state import keys
from gateway.backend import Backend


@dataclass(frozen=True)
class Caller:
    """trusted: may call at all. projects: None for an administrator, else the ones it is confined to."""

    identity: Identity
    trusted: bool
    projects: tuple[str, ...] | None = None
    certificate_der: bytes = b""
    kind: str = "client"

    def may_see(self, project: str, owner: str = "") -> bool:
        """Say whether an operation of *project* started by *owner* is this caller's business.

        Operations carry secrets (exec channels, trust tokens): a confined caller sees its own only.
        """
        return self.projects is None or project in self.projects or owner == self.identity.username

    def may_use(self, owner: str) -> bool:
        """Say whether the secrets of an operation started by *owner* are this caller's to use.

        Members of one project could else take over each other's commands (the class of CVE-2025-54289).
        """
        return self.is_admin or (owner != "" and owner == self.identity.username)

    def is_guest_of(self, project: str) -> bool:
        """Say whether only what is public in *project* may be shown."""
        if not self.trusted or self.kind == "metrics":
            return True
        return self.projects is not None and project not in self.projects

    @property
    def is_admin(self) -> bool:
        return self.trusted and self.projects is None and self.kind == "client"


def caller_of(request: web.Request, backend: Backend) -> Caller:
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport else None
    if sock is not None and sock.family == socket.AF_UNIX:
        return Caller(Identity(_peer_name(sock), "unix", "@"), trusted=True)
    der = _peer_certificate(request)
    fingerprint = hashlib.sha256(der).hexdigest() if der else ""
    peer = transport.get_extra_info("peername") if transport else None
    address = f"{peer[0]}:{peer[1]}" if peer else ""
    entry = backend.certificates.get(keys.certificate(fingerprint)) if der else None
    if entry is None:
        stranger = Identity(fingerprint, "tls", address, projects=())
        return Caller(stranger, trusted=False, certificate_der=der)
    record = entry.record
    projects = record.projects if record.restricted else None
    identity = Identity(fingerprint, "tls", address, projects)
    return Caller(identity, True, projects, der, record.type)


def require(caller: Caller, access: str, project: str, *, everywhere: bool = False) -> None:
    """Raises: Forbidden unless the caller may use a route with this *access*.

    everywhere: it asked for all projects, which a confined caller never may.
    """
    if everywhere and caller.projects is not None:
        raise Forbidden("NOT_AUTHORIZED", "not authorized")
    if access == "public":
        return
    refused = not caller.trusted or (access == "admin" and not caller.is_admin)
    if caller.kind == "metrics" and access != "metrics":
        refused = True
    if access in ("project", "metrics") and caller.projects is not None and project not in caller.projects:
        refused = True
    if refused:
        raise Forbidden("NOT_AUTHORIZED", "not authorized")


def _peer_name(sock: socket.socket) -> str:
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return _user_name(struct.unpack("3i", data)[1])


@lru_cache(256)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _peer_certificate(request: web.Request) -> bytes:
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    return (tls.getpeercert(True) or b"") if tls else b""
