"""`podium`: what the stock client cannot do. Everyday verbs are still `lxc`'s; see docs/status.md.

Modules are imported by the command that needs them, so that `podium --help` is quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="podium", description="System containers behind LXD's API")
    verbs = top.add_subparsers(dest="verb", required=True)
    for verb, text in (("up", "set up and start"), ("down", "stop the services"), ("purge", "remove all")):
        verbs.add_parser(verb, help=text)
    admin = verbs.add_parser("admin", help="look after the state store").add_subparsers(
        dest="what", required=True
    )
    etcd = admin.add_parser("etcd", help="etcd itself").add_subparsers(dest="action", required=True)
    for action, text in (
        ("members", "who takes part"),
        ("status", "version, size and leader"),
        ("defrag", "give freed space back"),
    ):
        etcd.add_parser(action, help=text)
    etcd.add_parser("compact", help="drop history before a revision").add_argument("revision", type=int)
    etcd.add_parser("snapshot", help="save everything to a file").add_argument("file", type=Path)
    return top


def run_member(verb: str) -> int:
    from deploy import down, purge, up

    return {"up": up.main, "down": down.main, "purge": purge.main}[verb]()


def run_etcd(args: argparse.Namespace) -> int:
    from core.settings import Settings
    from core.state.etcd3_compat import client

    endpoint = Settings.from_env().etcd_endpoint
    try:
        print(json.dumps(_ask(client(endpoint), args), indent=2))
    except Exception as exc:
        # etcd3 raises classes of its own and grpc's; a person needs the endpoint and a next step.
        print(f"Error: etcd at {endpoint} did not answer", file=sys.stderr)
        print(f"Why: {type(exc).__name__}", file=sys.stderr)
        print("Try: podium up, or set PODIUM_ETCD to the right host:port", file=sys.stderr)
        return 1
    return 0


def _ask(etcd: Any, args: argparse.Namespace) -> Any:
    if args.action == "members":
        return [{"name": m.name, "clients": list(m.client_urls)} for m in etcd.members]
    if args.action == "status":
        s = etcd.status()
        return {"version": s.version, "size_bytes": s.db_size, "leader": s.leader.name, "term": s.raft_term}
    if args.action == "compact":
        etcd.compact(args.revision)
        return {"compacted_to": args.revision}
    if args.action == "snapshot":
        with args.file.open("xb") as file:
            etcd.snapshot(file)
        return {"file": str(args.file), "size_bytes": args.file.stat().st_size}
    etcd.defragment()
    return {"defragmented": True}


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_etcd(args) if args.verb == "admin" else run_member(args.verb)
