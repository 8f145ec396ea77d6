"""`publish`, `export` and `import`: instances as images and as files."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any

from cli.aliases import point
from cli.call import Call
from cli.failure import CliError
from cli.progress import Meter, Metered
from cli.server import Upload, url

_CHUNK = 1 << 20
# A backup that a client left behind goes by itself.
_KEPT_S = 24 * 3600


def publish(call: Call) -> None:
    name, properties = call.words[0], call.pairs(call.words[1:])
    instance, _, snapshot = name.partition("/")
    is_up = not snapshot and call.server.get(url("instances", instance))["status"] != "Stopped"
    if is_up and not call.on("force"):
        why = "The instance is currently running. Use --force to have it stopped and restarted"
        raise CliError(f"{name} cannot be published", why, f"podium publish --force {name}")
    if is_up:
        _switch(call, instance, "stop")
    try:
        done = call.server.send(
            "POST", url("images"), _wanted(call, name, properties), doing=f"Publishing {name}"
        )
    finally:
        if is_up:
            _switch(call, instance, "start")
    fingerprint = str(done["metadata"]["fingerprint"])
    for alias in call.texts("alias"):
        point(call.server, alias, fingerprint)
    print(f"Instance published with fingerprint: {fingerprint}")


def _wanted(call: Call, name: str, properties: dict[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "source": {"type": "snapshot" if "/" in name else "instance", "name": name},
        "public": call.on("public"),
        "compression_algorithm": call.text("compression"),
    }
    if properties:
        body["properties"] = properties
    if expiry := call.text("expire"):
        body["expires_at"] = expiry
    return body


def _switch(call: Call, instance: str, action: str) -> None:
    body = {"action": action, "timeout": -1, "force": False, "stateful": False}
    doing = "Stopping" if action == "stop" else "Starting"
    call.server.send("PUT", url("instances", instance, "state"), body, doing=f"{doing} {instance}")


def export_instance(call: Call) -> None:
    instance = call.words[0]
    target = call.word(1, f"{instance}.tar{ending(call.text('compression'))}")
    if os.path.exists(target) and not os.path.isfile(target):
        raise CliError(f"{target} cannot be written", "it is no file", "name another target")
    body = {"instance_only": call.on("instance-only"), "optimized_storage": call.on("optimized-storage")}
    backup = made(call, url("instances", instance, "backups"), instance, body)
    try:
        save(call, url("instances", instance, "backups", backup, "export"), target)
    finally:
        call.server.send("DELETE", url("instances", instance, "backups", backup))
    call.say("Backup exported successfully!")


def ending(compression: str) -> str:
    known = {"none": "", "bzip2": ".bz2", "zstd": ".zst", "xz": ".xz", "lzma": ".lzma", "lz4": ".lz4"}
    return known.get(compression.partition(" ")[0], ".gz")


def made(call: Call, place: str, name: str, wanted: dict[str, Any]) -> str:
    """Make a backup of *name* on the server and return what it is called."""
    goes = datetime.fromtimestamp(time.time() + _KEPT_S, UTC).isoformat()
    body = {"name": "", "expires_at": goes, "compression_algorithm": call.text("compression"), **wanted}
    done = call.server.send("POST", place, body, doing=f"Backing up {name}")
    return str(done["resources"]["backups"][0].partition("?")[0].rpartition("/")[2])


def save(call: Call, source: str, target: str) -> None:
    """Write what the server sends; a file that is not whole does not stay."""
    partial = f"{target}.partial"
    try:
        with call.server.stream("GET", source) as reply, open(partial, "wb") as file:
            total = int(reply.headers.get("Content-Length") or 0) or None
            with Meter("Exporting the backup", total, quiet=call.is_quiet) as meter:
                while data := reply.read(_CHUNK):
                    file.write(data)
                    meter.add(len(data))
            if meter.count != (total or meter.count):
                raise CliError("the backup is not complete", "the server ended early", "the same again")
        os.replace(partial, target)
    except OSError as exc:
        raise CliError(f"{target} cannot be written", exc.strerror or str(exc), "name another") from exc
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def import_instance(call: Call) -> None:
    path, name = call.words[0], call.word(1)
    headers = {"X-LXD-name": name} if name else {}
    headers |= {"X-LXD-pool": call.text("storage")} if call.text("storage") else {}
    bring(call, path, url("instances"), headers, doing="Importing instance")


def bring(call: Call, path: str, place: str, headers: dict[str, str], *, doing: str) -> None:
    """Send a file that becomes something at *place*."""
    if not os.path.isfile(path):
        raise CliError(f"{path} cannot be imported", "it is not there", "podium export makes such files")
    total = os.path.getsize(path)
    with open(path, "rb") as file, Meter(doing, total, quiet=call.is_quiet) as meter:
        metered: Any = Metered(file, meter)
        body = Upload(metered, total)
        reply = call.server.begin(
            "POST", place, body, headers={"Content-Type": "application/octet-stream", **headers}
        )
    call.server.wait(reply["metadata"], doing=doing)
