"""`podium admin client-cert`: let a program call the services by gRPC."""

from __future__ import annotations

from pathlib import Path

from cli.call import Call
from cli.failure import CliError


def write(call: Call) -> None:
    """Write certificate, key and CA into a folder (default: this one) and name them."""
    from core.errors import PodiumError
    from core.settings import Settings
    from deploy import client_cert

    name, folder = call.words[0], Path(*call.words[1:2])
    try:
        for path in client_cert.write(Settings.from_env(), name, folder):
            print(path)
    except (PodiumError, OSError) as exc:
        next = "podium admin client-cert NAME FOLDER, as root on a member"
        raise CliError("no certificate was made", str(exc), next) from exc
