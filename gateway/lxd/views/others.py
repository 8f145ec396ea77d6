"""Images, profiles, projects, networks, pools and certificates as LXD shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from core.rpc.identity import current_identity
from gateway.lxd.codes import EPOCH, NEVER, stamp_text
from gateway.lxd.views.instances import addresses_json, counters_json, devices_json


def used_by(references: Iterable[str]) -> list[str]:
    """Return the URLs; to a caller that is confined to projects only those within them."""
    own = current_identity().projects
    return [f"/1.0/{r}" for r in references if own is None or _project_of(r) in own]


def _project_of(reference: str) -> str:
    return parse_qs(urlsplit(reference).query).get("project", ["default"])[0]


def leases_json(leases: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the leases; to a confined caller only those of its instances, and the gateway's own."""
    own = current_identity().projects
    return [lease_json(lease) for lease in leases if own is None or lease.project in ("", *own)]


def image_json(i: Any) -> dict[str, Any]:
    shown = {
        "auto_update": i.auto_update,
        "properties": dict(i.properties),
        "public": i.public,
        "expires_at": stamp_text(i, "expires_at"),
        "profiles": list(i.profiles),
        "aliases": [{"name": a.name, "description": a.description} for a in i.aliases],
        "architecture": i.architecture,
        "cached": i.cached,
        "filename": i.filename,
        "fingerprint": i.fingerprint,
        "size": i.size_bytes,
        "type": "container",
        "created_at": stamp_text(i, "created_at"),
        "last_used_at": stamp_text(i, "last_used_at", NEVER),
        "uploaded_at": stamp_text(i, "uploaded_at", EPOCH),
    }
    if i.origin:
        known = ("server", "protocol", "alias", "certificate")
        shown["update_source"] = {**{k: i.origin.get(k, "") for k in known}, "image_type": ""}
    return shown


def alias_json(a: Any) -> dict[str, Any]:
    return {"name": a.name, "description": a.description, "target": a.target, "type": "container"}


def profile_json(p: Any) -> dict[str, Any]:
    return {
        "config": dict(p.config),
        "description": p.description,
        "devices": devices_json(p.devices),
        "name": p.name,
        "used_by": used_by(p.used_by),
    }


def project_json(p: Any) -> dict[str, Any]:
    return {
        "config": dict(p.config),
        "description": p.description,
        "name": p.name,
        "used_by": used_by(p.used_by),
    }


def network_json(n: Any) -> dict[str, Any]:
    return {
        "config": dict(n.config),
        "description": n.description,
        "name": n.name,
        "type": n.type,
        "used_by": used_by(n.used_by),
        "managed": n.managed,
        "status": _status(n.status),
        "locations": list(n.locations or ["none"]) if n.managed else None,
    }


def network_state_json(s: Any) -> dict[str, Any]:
    bridge = None
    if s.HasField("bridge"):
        bridge = {
            "id": s.bridge.id,
            "stp": s.bridge.stp,
            "forward_delay": s.bridge.forward_delay_ms // 10,  # hundredths of a second, as the kernel has it
            "vlan_default": s.bridge.vlan_default,
            "vlan_filtering": s.bridge.vlan_filtering,
            "upper_devices": list(s.bridge.upper_devices),
        }
    members = {m.member: {"status": m.status, "error": m.error} for m in s.members}
    counters = counters_json(s.counters)
    shown = ("bytes_received", "bytes_sent", "packets_received", "packets_sent")
    return {
        "addresses": addresses_json(s.addresses),
        "counters": {name: counters[name] for name in shown},
        "hwaddr": s.hwaddr,
        "mtu": s.mtu,
        "state": "up" if s.is_up else "down",
        "type": s.type,
        "bond": None,
        "bridge": bridge,
        "vlan": None,
        "ovn": None,
        **({"members": members} if members else {}),
    }


def lease_json(lease: Any) -> dict[str, Any]:
    return {
        "hostname": lease.hostname,
        "hwaddr": lease.hwaddr,
        "address": lease.address,
        "type": lease.type,
        "location": lease.location,
    }


def pool_json(p: Any) -> dict[str, Any]:
    return {
        "config": dict(p.config),
        "description": p.description,
        "name": p.name,
        "driver": p.driver,
        "used_by": used_by(p.used_by),
        "status": _status(p.status),
        "locations": ["none"],
    }


def _status(status: str) -> str:
    """LXD has no word for what is being deleted."""
    return "Pending" if status == "Deleting" else status


def certificate_json(c: Any) -> dict[str, Any]:
    return {
        "name": c.name,
        "type": c.type,
        "restricted": c.restricted,
        "projects": list(c.projects),
        "certificate": c.certificate,
        "fingerprint": c.fingerprint,
    }


def warning_json(w: Any) -> dict[str, Any]:
    return {
        "status": w.status,
        "uuid": w.id,
        "location": "none",
        "project": w.project,
        "type": w.type,
        "count": w.count,
        "first_seen_at": stamp_text(w, "first_seen_at"),
        "last_seen_at": stamp_text(w, "last_seen_at"),
        "last_message": w.message,
        "severity": w.severity,
        "entity_url": f"/1.0/{w.subject}" if w.subject else "",
    }
