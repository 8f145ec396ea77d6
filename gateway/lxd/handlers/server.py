"""/, /1.0, cluster (not clustered), resources, metrics."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Any

from aiohttp import web

from core.errors import Invalid, PodiumError, Unsupported
from gateway.lxd import envelope, etag
from gateway.lxd import request as req
from gateway.lxd.extensions import NAMES
from protos.podium.cluster.v1 import cluster_pb2 as pb
from protos.podium.runtime.v1 import instance_pb2 as runtime_pb

_VERSION = "5.0.2"
_SECRETS = ("core.trust_password",)


async def versions(request: web.Request) -> web.Response:
    return envelope.sync(["/1.0"])


async def get_server(request: web.Request) -> web.Response:
    caller = request["caller"]
    head: dict[str, Any] = {
        "api_extensions": NAMES,
        "api_status": "stable",
        "api_version": "1.0",
        "auth": "trusted" if caller.trusted else "untrusted",
        "public": False,
        "auth_methods": ["tls"],
    }
    if not caller.trusted:
        return envelope.sync(head)
    backend = req.backend(request)
    server = await backend.server.GetServer(pb.GetServerRequest())
    config = _shown(server.config)
    config.setdefault("core.https_address", backend.settings.https_address)
    head["config"] = config if caller.is_admin else None
    head["environment"] = await _environment(request, server)
    return envelope.sync(head, etag=etag.of(config))


def _shown(config: Any) -> dict[str, Any]:
    return {name: True if name in _SECRETS else value for name, value in config.items()}


async def _environment(request: web.Request, server: Any) -> dict[str, Any]:
    try:
        info = await req.backend(request).instances.GetRuntimeInfo(runtime_pb.GetRuntimeInfoRequest())
    except PodiumError:
        info = runtime_pb.GetRuntimeInfoResponse(engine="lxc")
    drivers = dict(info.storage_drivers)
    return {
        "addresses": addresses(req.backend(request).settings.https_address),
        "architectures": list(info.architectures) or [platform.machine()],
        "certificate": server.certificate,
        "certificate_fingerprint": server.certificate_fingerprint,
        "driver": info.engine,
        "driver_version": info.engine_version,
        "firewall": "nftables",
        "kernel": "Linux",
        "kernel_architecture": platform.machine(),
        "kernel_features": dict(info.kernel_features),
        "kernel_version": platform.release(),
        "lxc_features": dict(info.engine_features),
        **_os_release(),
        "project": req.project(request),
        "server": "lxd",
        "server_clustered": False,
        "server_event_mode": "full-mesh",
        "server_name": server.member,
        "server_pid": os.getpid(),
        "server_version": _VERSION,
        "storage": " | ".join(drivers),
        "storage_version": " | ".join(drivers.values()),
        "storage_supported_drivers": [
            {"Name": name, "Remote": False, "Version": version} for name, version in drivers.items()
        ],
    }


def addresses(https_address: str) -> list[str]:
    host, _, port = https_address.rpartition(":")
    if not port:
        return []
    return [f"{host or '127.0.0.1'}:{port}"]


@lru_cache(1)
def _os_release() -> dict[str, str]:
    found = {}
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        found[key] = value.strip('"')
    return {"os_name": found.get("NAME", ""), "os_version": found.get("VERSION_ID", "")}


async def put_server(request: web.Request) -> web.Response:
    return await _change(request, merge=False)


async def patch_server(request: web.Request) -> web.Response:
    return await _change(request, merge=True)


async def _change(request: web.Request, *, merge: bool) -> web.Response:
    config = req.object_of(await req.body(request), "config")
    unchanged = [name for name in _SECRETS if config.get(name) is True]
    for name in unchanged:
        config.pop(name)
    backend = req.backend(request)
    server = await backend.server.GetServer(pb.GetServerRequest())
    current = _shown(server.config)
    current.setdefault("core.https_address", backend.settings.https_address)
    etag.check(request, etag.of(current))
    wanted = req.text_map({"config": config}, "config")
    if wanted.get("core.https_address") == backend.settings.https_address:
        wanted.pop("core.https_address")
    elif "core.https_address" in wanted:
        raise Unsupported(
            "ADDRESS_FIXED", "core.https_address is set by PODIUM_HTTPS when Podium starts; restart with it"
        )
    await backend.server.UpdateServer(
        pb.UpdateServerRequest(
            config=wanted, unchanged=unchanged, merge=merge, expected_revision=server.revision
        )
    )
    return envelope.empty()


async def get_cluster(request: web.Request) -> web.Response:
    return envelope.sync({"server_name": "", "enabled": False, "member_config": []})


async def not_clustered(request: web.Request) -> web.Response:
    raise Invalid("NOT_CLUSTERED", "Server is not clustered")


async def resources(request: web.Request) -> web.Response:
    """The short truth: CPUs and memory; other hardware is listed empty until it is read."""
    memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in _meminfo()}
    total, used = memory["MemTotal"], memory["MemTotal"] - memory["MemAvailable"]
    cores = [
        {
            "core": n,
            "die": 0,
            "threads": [{"id": n, "numa_node": 0, "thread": 0, "online": True, "isolated": False}],
        }
        for n in range(os.cpu_count() or 1)
    ]
    socket = {"name": "", "vendor": "", "socket": 0, "cache": [], "cores": cores}
    node = {"numa_node": 0, "hugepages_used": 0, "hugepages_total": 0, "used": used, "total": total}
    return envelope.sync(
        {
            "cpu": {"architecture": platform.machine(), "sockets": [socket], "total": len(cores)},
            "memory": {
                "nodes": [node],
                "hugepages_total": 0,
                "hugepages_used": 0,
                "hugepages_size": 2097152,
                "used": used,
                "total": total,
            },
            "gpu": {"cards": [], "total": 0},
            "network": {"cards": [], "total": 0},
            "storage": {"disks": [], "total": 0},
            "usb": {"devices": [], "total": 0},
            "pci": {"devices": [], "total": 0},
            "system": {
                "uuid": "",
                "vendor": "",
                "product": "",
                "family": "",
                "version": "",
                "sku": "",
                "serial": "",
                "type": "",
                "firmware": None,
                "chassis": None,
                "motherboard": None,
            },
        }
    )


def _meminfo() -> list[str]:
    return [line for line in Path("/proc/meminfo").read_text().splitlines() if line.endswith("kB")]


async def metrics(request: web.Request) -> web.Response:
    """Instance metrics under LXD's names; written by hand, since it must be fast at a thousand."""
    confined = request["caller"].projects is not None
    project = req.project(request) if confined else request.query.get("project", "")
    reply = await req.backend(request).instances.GetInstanceMetrics(
        runtime_pb.GetInstanceMetricsRequest(project=project)
    )
    families: dict[str, list[str]] = {}
    for instance in reply.instances:
        own = f'name="{instance.name}",project="{instance.project}",type="container"'
        for sample in instance.samples:
            pairs = zip(sample.labels[::2], sample.labels[1::2], strict=False)
            labels = "".join(f'{k}="{_escape(v)}",' for k, v in pairs) + own
            families.setdefault(sample.name, []).append(f"lxd_{sample.name}{{{labels}}} {sample.value:g}")
    lines = []
    for name, samples in sorted(families.items()):
        kind = "counter" if name.endswith("_total") and name != "procs_total" else "gauge"
        lines += [f"# HELP lxd_{name} {name.replace('_', ' ')}", f"# TYPE lxd_{name} {kind}", *samples]
    return web.Response(text="\n".join([*lines, "# EOF"]) + "\n", content_type="text/plain")


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
