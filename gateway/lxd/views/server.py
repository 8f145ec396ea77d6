"""/1.0 as LXD shows it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.configkeys.others import SECRETS
from gateway.facts import Facts
from gateway.interfaces import host_addresses
from gateway.lxd.extensions import NAMES

_VERSION = "5.0.2"
_ANY_IPV4 = "0.0.0.0"  # noqa: S104 - told, not bound to


def head_json(*, trusted: bool) -> dict[str, Any]:
    """Return what anybody is told."""
    return {
        "api_extensions": NAMES,
        "api_status": "stable",
        "api_version": "1.0",
        "auth": "trusted" if trusted else "untrusted",
        "public": False,
        "auth_methods": ["tls"],
    }


def config_json(config: Mapping[str, str], https_address: str) -> dict[str, Any]:
    """Return the keys that are set; of secrets only that they are."""
    shown = {name: True if name in SECRETS else value for name, value in config.items()}
    return {"core.https_address": https_address, **shown}


def environment_json(facts: Facts, project: str) -> dict[str, Any]:
    runtime = facts.runtime
    drivers = dict(sorted(runtime.storage_drivers.items()))
    return {
        "addresses": addresses(facts.https_address),
        "architectures": list(runtime.architectures) or [platform.machine()],
        "certificate": facts.certificate,
        "certificate_fingerprint": facts.fingerprint,
        "driver": runtime.engine,
        "driver_version": runtime.engine_version,
        "firewall": "nftables",
        "kernel": "Linux",
        "kernel_architecture": platform.machine(),
        "kernel_features": dict(runtime.kernel_features),
        "kernel_version": platform.release(),
        "lxc_features": dict(runtime.engine_features),
        **_os_release(),
        "project": project,
        "server": "lxd",
        "server_clustered": facts.clustered,
        "server_event_mode": "full-mesh",
        "server_name": facts.member,
        "server_pid": os.getpid(),
        "server_version": _VERSION,
        "storage": " | ".join(drivers),
        "storage_version": " | ".join(drivers.values()),
        "storage_supported_drivers": [
            {"Name": name, "Remote": False, "Version": version} for name, version in drivers.items()
        ],
    }


def addresses(https_address: str) -> list[str]:
    """Return where others may reach the REST API that listens on *https_address*."""
    host, _, port = https_address.rpartition(":")
    if not port:
        return []
    if host not in ("", _ANY_IPV4, "[::]"):
        return [https_address]
    found = [ip for ip in host_addresses() if ip.version == 4 or host != _ANY_IPV4]
    return [f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}" for ip in found]


@lru_cache(1)
def _os_release() -> dict[str, str]:
    found = {}
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        found[key] = value.strip('"')
    return {"os_name": found.get("NAME", ""), "os_version": found.get("VERSION_ID", "")}
