"""Let members in: a token admits one, once, and gets it certificates and a place in the state."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from core import membership
from core.errors import AlreadyExists, Forbidden, Invalid, PodiumError, Unavailable
from core.logs import get_logger
from core.operations.operation import TOKEN, Operation
from core.operations.runner import Runner
from core.records import Member
from core.settings import Settings
from core.state import codec, keys
from core.state.etcdmembers import EtcdMember, EtcdMembers
from core.state.store import Txn
from core.tasks import cancelled
from services.cluster.authority import Authority, Granted
from services.cluster.domain import certificates, joining
from services.cluster.store import ClusterStore

log = get_logger(__name__)
_KIND = "cluster-join-token"
_LASTS = timedelta(hours=3)
_PATIENCE_S, _PAUSE_S = 20.0, 0.25


@dataclass(frozen=True)
class Admission:
    """What a member that joins is told."""

    granted: Granted
    runs_etcd: bool
    first_peers: str
    endpoints: tuple[str, ...]


class Joins:
    """Answers on the member that has the CA; start() goes on with what a restart interrupted."""

    def __init__(
        self,
        store: ClusterStore,
        runner: Runner,
        etcds: EtcdMembers,
        authority: Authority,
        settings: Settings,
        fingerprint: str,
    ) -> None:
        self._store = store
        self._runner = runner
        self._etcds = etcds
        self._authority = authority
        self._settings = settings
        self._fingerprint = fingerprint
        self._joining = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if any(e.record.etcd and not e.record.votes for e in self._store.members.entries()):
            self._task = asyncio.create_task(self._give_votes(), name="etcd votes")

    async def stop(self) -> None:
        await cancelled(self._task)

    # --- tokens ------------------------------------------------------------------------------------

    async def create_token(self, name: str, addresses: list[str]) -> Operation:
        self._require_cluster()
        joining.member_name(name)
        self._refuse_living(name)
        if not addresses:
            raise Invalid(
                "NOT_LISTENING", "A member can join only by the REST API; set PODIUM_HTTPS and restart"
            )
        end = certificates.utc_now() + _LASTS
        metadata: dict[str, Any] = {
            "serverName": name,
            "secret": secrets.token_hex(32),
            "fingerprint": self._fingerprint,
            "addresses": addresses,
            "expiresAt": end.isoformat(timespec="seconds"),
        }
        return await self._runner.open(
            _KIND, "Executing operation", op_class=TOKEN, metadata=metadata, may_cancel=True
        )

    def _require_cluster(self) -> None:
        if not self._settings.cluster:
            raise Invalid("NOT_CLUSTERED", "This server is not clustered")
        if not (self._settings.tls_dir / "ca.key").exists():
            founder = next((e.record.name for e in self._store.members.entries() if _founded(e.record)), "")
            raise Invalid(
                "NO_CA",
                f"Members are let in by member {founder!r}, which has the CA; ask there",
                about=founder,
            )

    def _refuse_living(self, name: str) -> None:
        if self._store.presence.entries(keys.presences(name)) or name == self._settings.member:
            raise AlreadyExists(
                "MEMBER_EXISTS", f"The cluster already has a member called {name}", about=name
            )

    def _token(self, secret: str, name: str) -> Operation:
        for id in self._runner.live_of(_KIND):
            operation = self._runner.get(id)
            if hmac.compare_digest(str(operation.metadata.get("secret", "")).encode(), secret.encode()):
                end = datetime.fromisoformat(str(operation.metadata["expiresAt"]))
                if end <= certificates.utc_now():
                    raise Forbidden("TOKEN_EXPIRED", "Token has expired")
                if operation.metadata["serverName"] == name:
                    return operation
        raise Forbidden("NO_TOKEN", "No matching cluster join operation found")

    # --- joining -----------------------------------------------------------------------------------

    async def accept(self, secret: str, name: str, request: bytes, rpc: str) -> Admission:
        """Let a member in that shows a token, which is used up once nothing is left that could refuse it."""
        token = self._token(secret, name)
        self._require_cluster()
        host = joining.rpc_address(rpc).rpartition(":")[0].strip("[]")
        self._refuse_living(name)
        self._refuse_address(name, rpc)
        granted = await asyncio.to_thread(self._authority.grant, request, name, host)
        async with self._joining:
            await self._forget_etcd(name)
            found = await self._etcds.all()
            if joining.votes_first(len(found)):
                await self._let_vote(found)
            # First: of two callers with one token only one gets past this.
            await self._runner.cancel(token.id)
            return await self._admit(granted, name, rpc, found)

    def _refuse_address(self, name: str, rpc: str) -> None:
        for entry in self._store.members.entries():
            if entry.record.rpc == rpc and entry.record.name != name:
                raise AlreadyExists("ADDRESS_TAKEN", f"Member {entry.record.name!r} is at {rpc}", about=rpc)

    async def _forget_etcd(self, name: str) -> None:
        """Drop the etcd of an earlier member of that name, which lives no more: the new one is another."""
        was = self._store.members.get(keys.member(name))
        gone = f"https://{membership.etcd_peer(was.record.rpc)}" if was and was.record.rpc else ""
        for etcd in await self._etcds.all():
            if gone and etcd.peer == gone:
                await self._etcds.remove(etcd.id)

    async def _let_vote(self, found: tuple[EtcdMember, ...]) -> None:
        """Raises: Unavailable when one that only follows does not know everything yet."""
        end = time.monotonic() + _PATIENCE_S
        for etcd in found:
            while etcd.is_learner and not await self._promote(etcd):
                if time.monotonic() > end:
                    raise Unavailable(
                        "FOLLOWER_BEHIND",
                        f"The state store of member {etcd.name!r} has not caught up yet; see whether it "
                        "runs, and try again",
                        about=etcd.name,
                    )
                await asyncio.sleep(_PAUSE_S)

    async def _promote(self, etcd: EtcdMember) -> bool:
        if not await self._etcds.promote(etcd.id):
            return False
        for entry in self._store.members.entries():
            if f"https://{membership.etcd_peer(entry.record.rpc)}" == etcd.peer:
                await self._note_vote(entry.record.name)
        log.info("etcd_votes", etcd=etcd.name)
        return True

    async def _admit(self, granted: Granted, name: str, rpc: str, found: tuple[EtcdMember, ...]) -> Admission:
        runs_etcd, peers = joining.runs_etcd(len(found)), ""
        if runs_etcd:
            peer = f"https://{membership.etcd_peer(rpc)}"
            found = await self._add(peer)
            named = {etcd.peer: etcd.name or "unnamed" for etcd in found} | {peer: name}
            peers = ",".join(f"{called}={url}" for url, called in named.items())
        etcd = membership.etcd_client(rpc) if runs_etcd else ""
        member = Member(name, "", "", rpc, etcd, joined_at=time.time())
        revision = await self._store.store.commit(Txn().put(keys.member(name), member))
        self._store.members.apply(keys.member(name), member, revision)
        log.info("member_joined", member=name, rpc=rpc)
        if runs_etcd and joining.all_vote(len(found)):
            await cancelled(self._task)
            self._task = asyncio.create_task(self._give_votes(), name="etcd votes")
        voting = tuple(e.record.etcd for e in self._store.members.entries() if e.record.votes)
        return Admission(granted, runs_etcd, peers, voting)

    async def _add(self, peer: str) -> tuple[EtcdMember, ...]:
        """Add an etcd; others refuse until they were connected for five seconds. Raises: Unavailable."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await self._etcds.add_learner(peer)
            except Unavailable:
                found = await self._etcds.all()
                if any(etcd.peer == peer for etcd in found):
                    return found
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def _give_votes(self) -> None:
        """Give those that follow their votes as soon as they know everything, if there are enough."""
        while True:
            try:
                found = await self._etcds.all()
                behind = [etcd for etcd in found if etcd.is_learner]
                if not behind or not joining.all_vote(len(found)):
                    return
                for etcd in behind:
                    await self._promote(etcd)
            except PodiumError as exc:
                log.warning("votes_not_given", error=exc.message)
            await asyncio.sleep(_PAUSE_S)

    async def _note_vote(self, name: str) -> None:
        key = keys.member(name)
        kv = await self._store.store.get(key)
        if kv is None:
            return
        member = replace(codec.decode(Member, kv.value), votes=True)
        revision = await self._store.store.commit(Txn().unchanged(key, kv.revision).put(key, member))
        self._store.members.apply(key, member, revision)


def _founded(member: Member) -> bool:
    return bool(member.etcd) and not member.joined_at
