"""The trust store: certificates, passwords, tokens."""

from __future__ import annotations

import asyncio
import hmac
import math
import secrets
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from core.errors import AlreadyExists, Forbidden, Invalid, LimitReached, NotFound
from core.operations.operation import TOKEN, Operation
from core.operations.runner import Runner
from core.records import Certificate
from core.rpc.identity import current_identity
from core.state import keys
from core.state.repository import Entry
from core.units import parse_expiry
from services.cluster.domain import certificates, rules
from services.cluster.domain.guesses import Guesses
from services.cluster.store import ClusterStore
from services.cluster.usecases.profiles import event

if TYPE_CHECKING:
    from cryptography import x509

_TYPES = ("client", "metrics")


class Trust:
    def __init__(self, store: ClusterStore, runner: Runner, server_fingerprint: str) -> None:
        self._store = store
        self._runner = runner
        self._server_fingerprint = server_fingerprint
        self._guesses = Guesses()
        # A hash takes 16 MiB and 50 ms on purpose; strangers may not take every thread for theirs.
        self._hashing = asyncio.Semaphore(2)

    def all(self) -> list[Entry[Certificate]]:
        return self._store.certificate_cache.entries()

    def get(self, prefix: str) -> Entry[Certificate]:
        found = [e for e in self.all() if prefix and e.record.fingerprint.startswith(prefix)]
        if len(found) > 1:
            raise Invalid("AMBIGUOUS", "More than one certificate matches; give more digits", about=prefix)
        if not found:
            raise NotFound("NO_CERTIFICATE", "Certificate not found", about=prefix)
        return found[0]

    async def add(self, text: str, wanted: Certificate) -> Entry[Certificate]:
        _checked_type(wanted.type)
        self._require(wanted.projects)
        return await self._trust(certificates.parse(text), wanted)

    def _require(self, projects: tuple[str, ...]) -> None:
        """Raises: NotFound when a client would be confined to a project that is not there."""
        for name in projects:
            if self._store.project_cache.get(keys.project(name)) is None:
                raise NotFound("NO_PROJECT", "Project not found", about=name)

    async def redeem(self, der: bytes, secret: str, name: str) -> Entry[Certificate]:
        """Trust a connection's certificate for a password or a token. Raises: Forbidden."""
        certificate = certificates.parse_der(der)
        if token := rules.token_secret(secret):
            return await self._redeem_token(certificate, token)
        stored = self._server_config().get("core.trust_password", "")
        if not stored or not secret or not await self._is_password(secret, stored):
            raise Forbidden("NOT_AUTHORIZED", "not authorized")
        return await self._trust(certificate, Certificate(name=name))

    async def _is_password(self, secret: str, stored: str) -> bool:
        """Raises: LimitReached for an address that tried too often."""
        address = current_identity().address
        if wait_s := self._guesses.wait_s(address, time.monotonic()):
            raise LimitReached("TOO_MANY_TRIES", f"Too many tries; try again in {math.ceil(wait_s)} s")
        self._guesses.count(address, time.monotonic())
        async with self._hashing:
            if not await asyncio.to_thread(rules.password_matches, secret, stored):
                return False
        self._guesses.forget(address)
        return True

    async def _redeem_token(self, certificate: x509.Certificate, secret: str) -> Entry[Certificate]:
        # A certificate that will be refused must not use the token up.
        certificates.check(certificate, certificates.utc_now())
        operation = self._token_operation(secret)
        request: dict[str, Any] = operation.metadata["request"]
        wanted = Certificate(
            name=request["name"], restricted=request["restricted"], projects=tuple(request["projects"])
        )
        # Cancel first: of two callers with one token only one gets past this.
        await self._runner.cancel(operation.id)
        return await self._trust(certificate, wanted)

    def _token_operation(self, secret: str) -> Operation:
        for id in self._runner.live_of("trust-token"):
            operation = self._runner.get(id)
            if hmac.compare_digest(str(operation.metadata.get("secret", "")).encode(), secret.encode()):
                return _not_expired(operation)
        raise Forbidden("NO_TOKEN", "No matching certificate add operation found")

    async def create_token(
        self, name: str, restricted: bool, projects: list[str], addresses: list[str]
    ) -> Operation:
        if not name:
            raise Invalid("NO_NAME", "A token needs the name of the client it is for")
        request = {
            "name": name,
            "type": "client",
            "restricted": restricted,
            "projects": projects,
            "certificate": "",
            "password": "",
            "token": True,
        }
        metadata: dict[str, Any] = {
            "secret": secrets.token_hex(32),
            "fingerprint": self._server_fingerprint,
            "addresses": addresses,
            "request": request,
        }
        if expiry := self._server_config().get("core.remote_token_expiry"):
            end = certificates.utc_now() + timedelta(seconds=parse_expiry(expiry))
            metadata["expiresAt"] = end.isoformat(timespec="seconds")
        return await self._runner.open(
            "trust-token", "Executing operation", op_class=TOKEN, metadata=metadata, may_cancel=True
        )

    async def update(self, wanted: Certificate) -> Entry[Certificate]:
        entry = await self._store.certificates.get(
            keys.certificate(self.get(wanted.fingerprint).record.fingerprint)
        )
        if wanted.type not in ("", entry.record.type):
            raise Invalid("TYPE_STAYS", "The certificate type cannot be changed", about=wanted.type[:40])
        self._require(wanted.projects)
        changed = replace(
            entry.record,
            name=wanted.name,
            restricted=wanted.restricted,
            projects=wanted.projects,
        )
        told = event("certificate-updated", "certificates", "", entry.record.fingerprint)
        new = await self._store.certificates.replace(entry, changed, emit=[told])
        self._store.certificate_cache.apply(keys.certificate(changed.fingerprint), new.record, new.revision)
        return new

    async def delete(self, prefix: str) -> None:
        fingerprint = self.get(prefix).record.fingerprint
        told = event("certificate-deleted", "certificates", "", fingerprint)
        revision = await self._store.certificates.delete(keys.certificate(fingerprint), emit=[told])
        self._store.certificate_cache.apply(keys.certificate(fingerprint), None, revision)

    def _server_config(self) -> dict[str, str]:
        entry = self._store.server_cache.get(keys.server_config())
        return entry.record.config if entry else {}

    async def _trust(self, certificate: x509.Certificate, wanted: Certificate) -> Entry[Certificate]:
        certificates.check(certificate, certificates.utc_now())
        record = replace(
            wanted,
            fingerprint=certificates.fingerprint(certificate),
            certificate=certificates.pem(certificate),
            name=wanted.name or certificates.common_name(certificate) or f"client {int(time.time())}",
            type=_checked_type(wanted.type),
        )
        told = event("certificate-created", "certificates", "", record.fingerprint)
        try:
            entry = await self._store.certificates.create(record, emit=[told])
        except AlreadyExists as exc:
            raise AlreadyExists(
                "TRUSTED", "Certificate already in trust store", about=record.fingerprint
            ) from exc
        self._store.certificate_cache.apply(keys.certificate(record.fingerprint), record, entry.revision)
        return entry


def _not_expired(token: Operation) -> Operation:
    end = token.metadata.get("expiresAt")
    if end and datetime.fromisoformat(str(end)) <= certificates.utc_now():
        raise Forbidden("TOKEN_EXPIRED", "Token has expired")
    return token


def _checked_type(type: str) -> str:
    if (type or "client") not in _TYPES:
        raise Invalid("BAD_TYPE", "Invalid certificate type", about=type[:40])
    return type or "client"
