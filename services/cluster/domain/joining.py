"""Who may join a cluster under which name, and which members run an etcd with a vote. Pure."""

from __future__ import annotations

import re

from core.errors import Invalid

# Three survive the loss of one. Two would survive none, so the second one only follows until
# a third is there.
VOTERS = 3
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PORT = re.compile(r"[0-9]{1,5}")


def member_name(name: str) -> str:
    """Return the name if a host can have it. Raises: Invalid."""
    if not _NAME.fullmatch(name):
        raise Invalid(
            "BAD_NAME", "The name of a member has 1 to 63 letters, digits and hyphens", about=name[:64]
        )
    return name


def rpc_address(address: str) -> str:
    """Return host:port if others can reach it. Raises: Invalid."""
    host, _, port = address.rpartition(":")
    if not host or len(host) > 253 or not _PORT.fullmatch(port) or not 0 < int(port) < 65500:
        raise Invalid("BAD_ADDRESS", "The address of a member is host:port", about=address[:64])
    if host in ("0.0.0.0", "[::]", "localhost", "[::1]") or host.startswith("127."):  # noqa: S104 - compared
        raise Invalid("BAD_ADDRESS", f"Other members cannot reach {address[:64]}", about=address[:64])
    if any(c.isspace() or c in ",=/@" or not c.isprintable() for c in host):
        raise Invalid("BAD_ADDRESS", "The address of a member is host:port", about=address[:64])
    return address


def runs_etcd(etcds: int) -> bool:
    """Return whether one more member runs an etcd, where there are *etcds*."""
    return etcds < VOTERS


def votes_first(etcds: int) -> bool:
    """Return whether who follows gets its vote before one more comes: etcd takes one at a time."""
    return etcds == VOTERS - 1


def all_vote(etcds: int) -> bool:
    """Return whether followers get their vote as soon as they know everything."""
    return etcds >= VOTERS
