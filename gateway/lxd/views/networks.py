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
