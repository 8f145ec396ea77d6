"""Operation records as LXD shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.operations.operation import Operation
from gateway.lxd.codes import OPERATION, time_text

_SECRETS = frozenset({"fds", "secret", "control", "fs"})
# Whose instances LXD lists a second time, under the name that they had in its youth.
_ALSO_CONTAINERS = (
    *("instance.create", "instance.copy", "instance.rename", "instance.update", "instance.delete"),
    *("instance.restore", "instance.send", "instance.exec", "instance.console", "snapshot.", "backup."),
)
_CLASSES = {"task": "task", "channel": "websocket", "token": "token"}


def operation_url(id: str) -> str:
    return f"/1.0/operations/{id}"


def operation_json(operation: Operation, *, secrets: bool = True) -> dict[str, Any]:
    """Return the operation; without *secrets* nothing by which its channels or token can be used."""
    status, code = OPERATION[operation.state]
    return {
        "id": operation.id,
        "class": _CLASSES[operation.op_class],
        "description": operation.description,
        "created_at": time_text(operation.created_at),
        "updated_at": time_text(operation.updated_at),
        "status": status,
        "status_code": code,
        "resources": _resources(operation),
        "metadata": _metadata(operation, secrets=secrets) or None,
        "may_cancel": operation.may_cancel,
        "err": _error(operation),
        "location": "none",
    }


def _metadata(operation: Operation, *, secrets: bool) -> dict[str, Any]:
    found = dict(operation.metadata) if secrets else without_secrets(operation.metadata)
    if isinstance(output := found.get("output"), Mapping):
        [instance] = operation.resources["instances"]
        found["output"] = {fd: f"/1.0/instances/{instance}/logs/{file}" for fd, file in output.items()}
    return found


def without_secrets(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if key not in _SECRETS}


def _error(operation: Operation) -> str:
    if operation.state == "cancelled":
        return operation.error_message or "Operation cancelled"
    return operation.error_message


def _resources(operation: Operation) -> dict[str, list[str]] | None:
    # Without the project, unlike URLs elsewhere: the client takes what follows the last slash for a name.
    found = {kind: [f"/1.0/{kind}/{name}" for name in names] for kind, names in operation.resources.items()}
    if "instances" in operation.resources and operation.kind.startswith(_ALSO_CONTAINERS):
        names = operation.resources["instances"]
        found["containers"] = [f"/1.0/containers/{name}" for name in names]
    return found or None
