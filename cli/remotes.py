"""`podium remote` and `podium image copy`: where images are that are not here yet.

Remotes are this caller's own, in a file that nobody else may read: an address may hold a password.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any
from urllib.parse import urlsplit

from cli import tables
from cli.aliases import point
from cli.call import Call, conf_path
from cli.failure import CliError
from cli.server import url

_PROTOCOLS = ("oci", "simplestreams", "lxd")
_LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_FINGERPRINT = re.compile(r"[0-9a-f]{12,64}")

Remote = dict[str, str]


def _path() -> str:
    return os.path.join(os.path.dirname(conf_path()), "remotes.json")


def load() -> dict[str, Remote]:
    """Return all remotes by name. Raises: CliError."""
    try:
        with open(_path()) as file:
            found = json.load(file)
        return {str(name): {str(k): str(v) for k, v in remote.items()} for name, remote in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as exc:
        raise CliError(f"{_path()} cannot be read", str(exc), "mend it, or remove it") from exc


def _save(remotes: dict[str, Remote]) -> None:
    path = _path()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(remotes, file, indent=2)
    os.replace(new, path)


def add(call: Call) -> None:
    name, address = call.words
    protocol = call.text("protocol", "lxd")
    if not _NAME.fullmatch(name) or name == _LOCAL:
        raise call.misuse(
            f"{name!r} cannot name a remote", "letters, digits, . _ and -; local is this server"
        )
    if protocol not in _PROTOCOLS:
        raise call.misuse(f"there is no protocol {protocol!r}", f"protocols are {', '.join(_PROTOCOLS)}")
    if not address.startswith(("http://", "https://")):
        address = f"https://{address}"
    if not urlsplit(address).hostname:
        raise call.misuse(f"{address!r} is no address", "it must read https://HOST[:PORT][/PATH]")
    remotes = load()
    if name in remotes:
        raise CliError(f"{name} exists", f"it is {shown(remotes[name])}", f"podium remote remove {name}")
    _save({**remotes, name: {"address": address, "protocol": protocol}})


def remove(call: Call) -> None:
    remotes = load()
    for name in call.words:
        if remotes.pop(name, None) is None:
            raise _unknown(name, remotes)
    _save(remotes)


def listing(call: Call) -> None:
    remotes = load()
    rows = [[name, shown(remote), remote["protocol"]] for name, remote in sorted(remotes.items())]
    found = {name: {"address": shown(r), "protocol": r["protocol"]} for name, r in sorted(remotes.items())}
    tables.show(call.text("format"), ("NAME", "ADDRESS", "PROTOCOL"), rows, found)


def shown(remote: Remote) -> str:
    """Return the address without what proves who asks."""
    parts = urlsplit(remote["address"])
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def source_of(image: str) -> dict[str, Any] | None:
    """Return the source of REMOTE:IMAGE as a server takes it; None for an image of this server.

    Raises: CliError for a remote that is not known.
    """
    name, colon, wanted = image.partition(":")
    if not colon or name == _LOCAL:
        return None
    remotes = load()
    if name not in remotes:
        raise _unknown(name, remotes)
    remote = remotes[name]
    is_fingerprint = remote["protocol"] != "oci" and _FINGERPRINT.fullmatch(wanted)
    return {
        "type": "image",
        "mode": "pull",
        "protocol": remote["protocol"],
        "server": remote["address"],
        "fingerprint" if is_fingerprint else "alias": wanted,
    }


def _unknown(name: str, remotes: dict[str, Remote]) -> CliError:
    known = ", ".join(sorted(remotes)) or "there is none yet"
    next = f"podium remote add {name} https://HOST --protocol oci"
    return CliError(f"{name} is no remote", f"remotes are: {known}", next)


def copy(call: Call) -> None:
    """Bring an image here."""
    source = source_of(call.words[0])
    if call.word(1, f"{_LOCAL}:") != f"{_LOCAL}:" or source is None:
        why = "images are brought here from a remote; other servers pull from this one"
        raise CliError("that copy is not made from here", why, "podium image copy REMOTE:IMAGE")
    body = {
        "source": source,
        "public": call.on("public"),
        "auto_update": call.on("auto-update"),
    }
    done = call.server.send("POST", url("images"), body, doing=f"Copying {call.words[0]}")
    fingerprint = str(done["metadata"]["fingerprint"])
    for alias in call.texts("alias"):
        point(call.server, alias, fingerprint)
    print(f"Image copied with fingerprint: {fingerprint}")
