"""ACLs, forwards and the like of networks as LXD shows them."""

from __future__ import annotations

from typing import Any

from gateway.lxd.views.others import used_by

RULE_FIELDS = (
    *("action", "source", "destination", "protocol", "source_port", "destination_port", "icmp_type"),
    *("icmp_code", "description", "state"),
)


def acl_json(acl: Any) -> dict[str, Any]:
    return {
        "name": acl.name,
        "description": acl.description,
        "egress": [_rule_json(rule) for rule in acl.egress],
        "ingress": [_rule_json(rule) for rule in acl.ingress],
        "config": dict(acl.config),
        "used_by": used_by(acl.used_by),
    }


def _rule_json(rule: Any) -> dict[str, str]:
    """What says nothing is left out, but for action and state."""
    shown = {name: getattr(rule, name) for name in RULE_FIELDS}
    return {name: value for name, value in shown.items() if value or name in ("action", "state")}


PORT_FIELDS = ("description", "protocol", "listen_port", "target_port", "target_address")
BACKEND_FIELDS = ("name", "description", "target_address", "target_port")


def forward_json(forward: Any) -> dict[str, Any]:
    return {
        "description": forward.description,
        "config": dict(forward.config),
        "ports": [{name: getattr(port, name) for name in PORT_FIELDS} for port in forward.ports],
        "listen_address": forward.listen_address,
        "location": "none",
    }


def balancer_json(balancer: Any) -> dict[str, Any]:
    return {
        "description": balancer.description,
        "config": dict(balancer.config),
        "backends": [{name: getattr(b, name) for name in BACKEND_FIELDS} for b in balancer.backends],
        "ports": [
            {
                "description": port.description,
                "protocol": port.protocol,
                "listen_port": port.listen_port,
                "target_backend": list(port.target_backend),
            }
            for port in balancer.ports
        ],
        "listen_address": balancer.listen_address,
        "location": "none",
    }


def balancer_state_json(balancer: Any) -> dict[str, Any]:
    """The health of backends that somebody looks at."""
    shown = {b.name: {"address": b.target_address, "status": b.health} for b in balancer.backends if b.health}
    return {"backend_health": shown}


def zone_json(zone: Any) -> dict[str, Any]:
    return {
        "description": zone.description,
        "config": dict(zone.config),
        "name": zone.name,
        "used_by": used_by(zone.used_by),
    }


def zone_record_json(record: Any) -> dict[str, Any]:
    return {
        "description": record.description,
        "entries": [_entry_json(entry) for entry in record.entries],
        "config": dict(record.config),
        "name": record.name,
    }


def _entry_json(entry: Any) -> dict[str, Any]:
    ttl = {"ttl": entry.ttl} if entry.ttl else {}
    return {"type": entry.type, **ttl, "value": entry.value}


def allocation_json(a: Any) -> dict[str, Any]:
    return {
        "addresses": a.address,
        "used_by": f"/1.0/{a.used_by}",
        "type": a.type,
        "nat": a.nat,
        "hwaddr": a.hwaddr,
        "network": a.network,
        **({"location": a.location} if a.location else {}),
    }


def address_set_json(found: Any) -> dict[str, Any]:
    return {
        "name": found.name,
        "description": found.description,
        "config": dict(found.config),
        "addresses": list(found.addresses),
        "used_by": used_by(found.used_by),
        "project": found.project,
    }
