"""`make up`: a running member with a pool, a network, an image and a first container.

Quick and harmless when repeated: everything is looked at first.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import PodiumError
from core.settings import Settings
from deploy import host
from deploy.command import ensure_command
from deploy.privileges import ROOT
from deploy.rest import Rest, RestError
from deploy.turns import turn

IMAGE = "debian/12"
FIRST = "first"
_READY_S = 60.0
_ADDRESS_S = 15.0


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def start(settings: Settings) -> Rest:
    """Make the host ready, start the supervisor and return a client once everything answers."""
    if os.geteuid():
        raise SystemExit("Podium's set-up needs root.\nRun it as root, or with sudo.")
    host.ensure_user(settings.group)
    host.ensure_folders(settings)
    host.ensure_subordinate_ids()
    host.ensure_sysctls()
    host.ensure_quick_cgroups()
    host.ensure_readable(settings)
    environment = {**os.environ, "PODIUM_DIR": str(settings.state_dir), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "deploy.supervisor"], check=True, env=environment, cwd="/")
    rest = Rest(settings.socket_path)
    wait_ready(rest, settings)
    return rest


def wait_ready(rest: Rest, settings: Settings) -> None:
    """Return when every service answers. Raises: SystemExit naming the log to read."""
    end = time.monotonic() + _READY_S
    probes = ("/1.0", "/1.0/profiles", "/1.0/images", "/1.0/networks", "/1.0/storage-pools")
    error: Exception = RuntimeError("nothing was tried")
    for url in probes:
        while True:
            try:
                rest.call("GET", url)
                break
            except (OSError, RestError) as exc:
                error = exc
            if time.monotonic() > end:
                raise SystemExit(
                    f"Podium did not come up: {url} says {error}.\n"
                    f"The services write their logs to {settings.state_dir}/logs.\n"
                    f"Try: tail -n 20 {settings.state_dir}/logs/*.log"
                )
            time.sleep(0.1)


def ensure(rest: Rest, url: str, create: Callable[[], Any]) -> bool:
    """Call *create* unless *url* exists; return whether it did."""
    try:
        rest.call("GET", url)
        return False
    except RestError as exc:
        if exc.code != 404:
            raise
    create()
    return True


def ensure_defaults(rest: Rest, settings: Settings) -> None:
    def pool() -> None:
        try:
            rest.call("POST", "/1.0/storage-pools", {"name": "default", "driver": "btrfs", "config": {}})
        except RestError as exc:
            if "podium admin recover" in str(exc):
                say("Found the pool of an earlier state; bringing back what lies in it")
                rest.call("POST", "/internal/recover/import", {"pools": []})
                return
            rest.call("POST", "/1.0/storage-pools", {"name": "default", "driver": "dir", "config": {}})

    ensure(rest, "/1.0/storage-pools/default", pool)
    ensure(
        rest,
        f"/1.0/networks/{settings.bridge}",
        lambda: rest.call("POST", "/1.0/networks", {"name": settings.bridge, "config": {}}),
    )
    profile = rest.call("GET", "/1.0/profiles/default")
    if not profile["devices"]:
        devices = {
            "eth0": {"type": "nic", "name": "eth0", "network": settings.bridge},
            "root": {"type": "disk", "path": "/", "pool": "default"},
        }
        rest.call("PATCH", "/1.0/profiles/default", {"devices": devices})


def ensure_image(rest: Rest) -> None:
    """Build the Debian image (cached) and import it under its alias."""

    def build() -> None:
        from services.image import build as builder

        cache = Path("/var/cache/podium/images")
        cache.mkdir(parents=True, exist_ok=True)
        output = cache / f"up-{os.getpid()}.tar.gz"  # another member may come up now
        say("Building a Debian 12 image from the configured package mirror (cached afterwards)")
        argv = [sys.executable, "-m", builder.__name__, "debian", "12", "--output", str(output)]
        subprocess.run(argv, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        headers = {"Content-Type": "application/octet-stream", "X-LXD-filename": "debian-12.tar.gz"}
        headers["Content-Length"] = str(output.stat().st_size)
        with output.open("rb") as file:
            try:
                done = rest.call("POST", "/1.0/images", file, headers=headers)
                fingerprint = done["metadata"]["fingerprint"]
            except RestError as exc:
                if "already exists" not in str(exc):
                    raise
                file.seek(0)
                fingerprint = hashlib.file_digest(file, "sha256").hexdigest()
        output.unlink(missing_ok=True)
        rest.call("POST", "/1.0/images/aliases", {"name": IMAGE, "target": fingerprint})

    ensure(rest, "/1.0/images/aliases/debian%2F12", build)


def ensure_first(rest: Rest) -> None:
    def launch() -> None:
        began = time.monotonic()
        source = {"type": "image", "alias": IMAGE}
        rest.call("POST", "/1.0/instances", {"name": FIRST, "source": source})
        rest.call("PUT", f"/1.0/instances/{FIRST}/state", {"action": "start", "timeout": 30})
        say(f"Launched {FIRST} in {(time.monotonic() - began) * 1000:.0f} ms")

    if not ensure(rest, f"/1.0/instances/{FIRST}", launch):
        state = rest.call("GET", f"/1.0/instances/{FIRST}/state")
        if state["status"] == "Stopped":
            rest.call("PUT", f"/1.0/instances/{FIRST}/state", {"action": "start", "timeout": 30})


def wait_address(rest: Rest) -> None:
    """Return once the first container has its IPv4 lease, so that the table shows it."""
    end = time.monotonic() + _ADDRESS_S
    while time.monotonic() < end:
        state = rest.call("GET", f"/1.0/instances/{FIRST}/state")
        addresses = ((state.get("network") or {}).get("eth0") or {}).get("addresses") or []
        if any(a["family"] == "inet" and a["scope"] == "global" for a in addresses):
            return
        time.sleep(0.05)
    say(f"{FIRST} has no IPv4 address after {_ADDRESS_S:.0f} s; see logs/network.log")


def _joined(settings: Settings) -> Settings:
    """Join the cluster whose token PODIUM_JOIN is, unless this member is in one already."""
    from deploy import cluster

    token = os.environ.get("PODIUM_JOIN", "")
    if not token or settings.cluster:
        return settings
    try:
        return cluster.join(settings, token)
    except PodiumError as exc:
        raise SystemExit(f"This host did not join the cluster: {exc.message}.") from exc


def main() -> int:
    settings = Settings.from_env()
    if os.geteuid():
        raise SystemExit("Podium's set-up needs root.\nRun it as root, or with sudo.")
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with turn(settings.state_dir) as is_there:
        if not is_there:
            raise SystemExit(f"{settings.state_dir} was purged meanwhile.\nTry again.")
        settings = _joined(settings)
        rest = start(settings)
        ensure_defaults(rest, settings)
        ensure_image(rest)
        ensure_first(rest)
        wait_address(rest)
    environment = {**os.environ, "LXD_DIR": str(settings.state_dir)}
    subprocess.run(["lxc", "list"], env=environment, check=True, stderr=subprocess.DEVNULL)
    print(
        f"\nPodium runs. Use the client you know:\n\n"
        f"    export LXD_DIR={settings.state_dir}\n"
        f"    lxc launch {IMAGE} web\n"
        f"    lxc exec web -- bash\n\n"
        f"Or the one of Podium's own, with the same verbs and more: {ensure_command(settings)} --help\n\n"
        f"`make down` stops the services and leaves containers running; `make purge` removes everything."
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
