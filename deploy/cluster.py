"""Found a cluster, or join one: what a member does as root before its services run.

    python -m deploy.cluster enable [NAME] [--address HOST[:PORT]]
    python -m deploy.cluster join TOKEN [--address HOST[:PORT]]

cluster.json is written last: until then a member is what it was, and either may be done again.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import os
import ssl
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from core import membership
from core.errors import Invalid, PodiumError
from core.membership import Membership
from core.settings import Settings
from core.state.etcdmembers import EtcdMembers
from core.state.opening import open_store
from deploy import down, host, up
from deploy.supervisor import find_running
from services.cluster.authority import Authority, Granted
from services.cluster.domain import joining

_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Token:
    """What a token says, in LXD's form."""

    name: str
    fingerprint: str
    addresses: tuple[str, ...]
    secret: str


def parse_token(text: str) -> Token:
    """Raises: Invalid for what is no token, or one that has expired."""
    try:
        found = json.loads(base64.b64decode(text, validate=True))
        token = Token(
            str(found["server_name"]),
            str(found["fingerprint"]),
            tuple(map(str, found["addresses"])),
            str(found["secret"]),
        )
        end = datetime.fromisoformat(str(found["expires_at"]))
    except (ValueError, KeyError, TypeError):
        raise Invalid("BAD_TOKEN", "This is no join token; make one with: podium cluster add NAME") from None
    if end <= datetime.now(UTC):
        raise Invalid(
            "TOKEN_EXPIRED", "The join token has expired; make another with: podium cluster add NAME"
        )
    return token


def enable(settings: Settings, name: str = "", address: str = "") -> None:
    """Let other members join this one from now on. Its services restart; its instances do not notice.

    Raises: Invalid, Unavailable.
    """
    _require_root()
    if settings.cluster:
        raise Invalid("CLUSTERED", "This server is already clustered")
    if name and name != settings.member:
        raise Invalid(
            "NAMED", f"This member is called {settings.member!r}, and so do its records; leave the name out"
        )
    joining.member_name(settings.member)
    rpc = rpc_of(settings, address)
    if not find_running(settings):
        raise Invalid("NOT_RUNNING", "Podium does not run here; start it first with: make up")
    if not settings.etcd_endpoint.startswith("unix:"):
        raise Invalid("FOREIGN_ETCD", "PODIUM_ETCD names an etcd that Podium does not run; unset it first")
    cluster = Membership(settings.member, rpc)
    asyncio.run(_move_etcd(settings, f"https://{cluster.etcd_peer}"))
    authority = Authority(settings.tls_dir, settings.group)
    authority.ensure(settings.member, cluster.host, clustered=True)
    membership.write(settings.state_dir, cluster)
    down.stop(settings)
    up.start(Settings.from_env())


async def _move_etcd(settings: Settings, peer: str) -> None:
    store = open_store(settings, "enable")
    try:
        etcds = EtcdMembers(store)
        for etcd in await etcds.all():
            await etcds.move(etcd.id, peer)
    finally:
        await store.close()


def join(settings: Settings, text: str, address: str = "") -> Settings:
    """Become a member of the cluster that made the token; return the settings to start with.

    Raises: Invalid, PodiumError when the cluster refuses.
    """
    _require_root()
    token = parse_token(text)
    if settings.cluster:
        raise Invalid("CLUSTERED", "This server is already clustered")
    if (settings.state_dir / "etcd" / "member").exists():
        raise Invalid(
            "HAS_STATE",
            f"{settings.state_dir} has a state of its own, which joining would replace; "
            "move its instances elsewhere and run make purge first",
        )
    rpc = rpc_of(settings, address)
    host.ensure_user(settings.group)
    host.ensure_folders(settings)
    authority = Authority(settings.tls_dir, settings.group)
    asked = {
        "secret": token.secret,
        "name": token.name,
        "certificate_request": authority.request(token.name).decode(),
        "address": rpc,
    }
    told = _ask(token, asked)
    granted = Granted(*(told[key].encode() for key in ("ca", "certificate", "etcd_ca", "etcd_certificate")))
    authority.install(granted)
    membership.write_endpoints(settings.run_dir, tuple(told["endpoints"]))
    cluster = Membership(token.name, rpc, bool(told["runs_etcd"]), str(told["first_peers"]))
    membership.write(settings.state_dir, cluster)
    return Settings.from_env()


def rpc_of(settings: Settings, address: str) -> str:
    """Return where others shall reach this member: *address*, else PODIUM_RPC. Raises: Invalid."""
    port = settings.rpc_base.rpartition(":")[2] or "9470"
    whole = address or settings.rpc_base
    if address and not address.rpartition(":")[2].isdigit():
        whole = f"{address}:{port}"
    try:
        return joining.rpc_address(whole)
    except Invalid as exc:
        raise Invalid(
            exc.reason, f"{exc.message}; say which address they can: --address HOST[:PORT]", about=whole
        ) from exc


def _require_root() -> None:
    if os.geteuid():
        raise Invalid("NOT_ROOT", "This changes the services of the host; run it as root, or with sudo")


def _ask(token: Token, body: dict[str, Any]) -> dict[str, Any]:
    """Show the token to the first of its addresses that answers with the certificate it names."""
    why = "the token names no address"
    for address in token.addresses:
        connection = http.client.HTTPSConnection(address, timeout=_TIMEOUT_S, context=_unchecked())
        try:
            connection.connect()
            _check_certificate(connection, token.fingerprint)
            connection.request("POST", "/internal/cluster/accept", json.dumps(body))
            reply = json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException) as exc:
            why = f"{address}: {exc}"
            continue
        finally:
            connection.close()
        if reply.get("type") == "error":
            raise PodiumError("REFUSED", f"The cluster refuses: {reply['error']}")
        return dict(reply["metadata"])
    raise Invalid("NOT_REACHED", f"The cluster was not reached ({why})")


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the token names the one certificate that will do
    return context


def _check_certificate(connection: http.client.HTTPSConnection, wanted: str) -> None:
    der = connection.sock.getpeercert(binary_form=True) or b""
    if not hmac.compare_digest(hashlib.sha256(der).hexdigest(), wanted):
        raise OSError("it shows another certificate than the one in the token")


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.cluster")
    parser.add_argument("verb", choices=("enable", "join"))
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--address", default="")
    args = parser.parse_args()
    try:
        if args.verb == "enable":
            enable(Settings.from_env(), args.word, args.address)
        else:
            up.start(join(Settings.from_env(), args.word, args.address))
    except PodiumError as exc:
        print(f"Error: {exc.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
