"""Members of a cluster as LXD shows them."""

from __future__ import annotations

import os
from typing import Any

from core.records import Member
from protos.podium.cluster.v1 import cluster_pb2 as pb

_VOTES, _FOLLOWS = "database", "database-standby"


def member_json(member: pb.Member, record: Member) -> dict[str, Any]:
    """LXD knows Online, Offline, Evacuated and Blocked; a member without some services serves nobody well."""
    roles = [_VOTES] if record.votes else [_FOLLOWS] if record.etcd else []
    return {
        "server_name": member.name,
        "url": f"https://{member.address}" if member.address else "",
        "database": bool(record.etcd),
        "status": "Online" if member.status == "Online" else "Offline",
        "message": member.message,
        "architecture": member.architecture,
        "failure_domain": "default",
        "description": "",
        "config": {},
        "groups": ["default"],
        "roles": roles,
    }


def state_json() -> dict[str, Any]:
    """Of the member that answers. Source: LXD 5.0.2, doc/rest-api.yaml, ClusterMemberState."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "sysinfo": {
            "load_averages": list(os.getloadavg()),
            "total_ram": found,
            "free_ram": free,
            "processes": 0,
        },
        "storage_pools": {},
    }
