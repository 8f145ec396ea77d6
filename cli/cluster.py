"""`podium cluster`: found one, let hosts in, join, and see who is there."""

from __future__ import annotations

import base64
import json
from typing import Any

from cli import tables
from cli.call import Call
from cli.failure import CliError
from cli.server import url


def enable(call: Call) -> None:
    from core.errors import PodiumError
    from core.settings import Settings
    from deploy import cluster

    try:
        settings = Settings.from_env()
        cluster.enable(settings, call.word(0), call.text("address"))
    except PodiumError as exc:
        raise CliError("no cluster was founded", exc.message, "podium cluster enable --address HOST") from exc
    call.say(f"Member {settings.member} is a cluster of one now. Let others in with: podium cluster add NAME")


def add(call: Call) -> None:
    name = call.text("name") or call.word(0)
    if not name:
        raise CliError("no token was made", "the member needs a name", "podium cluster add NAME")
    reply = call.server.begin("POST", url("cluster", "members"), {"server_name": name})
    call.say(f"Member {name} join token:")
    print(token_of(reply["metadata"]["metadata"]))


def token_of(metadata: dict[str, Any]) -> str:
    """Return the token in the form that LXD gives it. Source: lxd 5.0.2, shared/api/cluster.go."""
    token = {
        "server_name": metadata["serverName"],
        "fingerprint": metadata["fingerprint"],
        "addresses": metadata["addresses"],
        "secret": metadata["secret"],
        "expires_at": metadata["expiresAt"],
    }
    return base64.b64encode(json.dumps(token, separators=(",", ":")).encode()).decode()


def join(call: Call) -> None:
    from core.errors import PodiumError
    from core.settings import Settings
    from deploy import cluster, up

    try:
        settings = cluster.join(Settings.from_env(), call.words[0], call.text("address"))
    except (PodiumError, OSError) as exc:
        raise CliError("this host did not join", str(exc), "podium cluster add NAME, on a member") from exc
    up.start(settings)
    call.say(f"Member {settings.member} joined the cluster")


def listing(call: Call) -> None:
    found = call.server.get(url("cluster", "members"), recursion="1")
    header = ("NAME", "URL", "ROLES", "ARCHITECTURE", "STATUS", "MESSAGE")
    rows = [
        [
            m["server_name"],
            m["url"],
            "\n".join(m["roles"]),
            m["architecture"],
            m["status"].upper(),
            m["message"],
        ]
        for m in found
    ]
    tables.show(call.text("format"), header, rows, found)
