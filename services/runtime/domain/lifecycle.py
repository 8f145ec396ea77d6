"""The life of an instance as a table: (state, event) -> state. Pure."""

from __future__ import annotations

from core.errors import WrongState

CREATING, STOPPED, STARTING, RUNNING = "creating", "stopped", "starting", "running"
FROZEN, STOPPING, DELETING, ERROR = "frozen", "stopping", "deleting", "error"
UP = frozenset({RUNNING, FROZEN})

_TABLE = {
    (STOPPED, "start"): STARTING,
    (ERROR, "start"): STARTING,
    (RUNNING, "stop"): STOPPING,
    (FROZEN, "stop"): STOPPING,
    (ERROR, "stop"): STOPPING,
    (RUNNING, "restart"): STOPPING,
    (FROZEN, "restart"): STOPPING,
    (RUNNING, "exit"): STOPPING,
    (FROZEN, "exit"): STOPPING,
    (RUNNING, "freeze"): RUNNING,
    (FROZEN, "unfreeze"): FROZEN,
    (STOPPED, "give-up"): STOPPING,
    (STOPPED, "delete"): DELETING,
    (ERROR, "delete"): DELETING,
    (STOPPED, "rename"): STOPPED,
    (STOPPED, "snapshot"): STOPPED,
    (RUNNING, "snapshot"): RUNNING,
    (FROZEN, "snapshot"): FROZEN,
    (STOPPED, "restore"): STOPPED,
    (RUNNING, "restore"): STOPPING,
    (FROZEN, "restore"): STOPPING,
    (STOPPED, "refresh"): STOPPED,
    (STOPPED, "move"): STOPPED,
    (STOPPED, "rebuild"): STOPPED,
    (STOPPED, "update"): STOPPED,
    (RUNNING, "update"): RUNNING,
    (FROZEN, "update"): FROZEN,
}
_EXCLUSIVE = "Failed getting exclusive access to instance: Instance is running"
_NOT_LIVE = "The instance is running; it can be moved when it is stopped"
_WHY = {
    (RUNNING, "start"): "The instance is already running",
    (FROZEN, "start"): "The instance is frozen; unfreeze it",
    (STOPPED, "stop"): "The instance is already stopped",
    (STOPPED, "restart"): "The instance is already stopped",
    (STOPPED, "freeze"): "The container isn't running",
    (FROZEN, "freeze"): "The container is already frozen",
    (RUNNING, "unfreeze"): "The container is already running",
    (STOPPED, "unfreeze"): "The container isn't running",
    (RUNNING, "delete"): "Instance is running",
    (FROZEN, "delete"): "Instance is running",
    (RUNNING, "refresh"): _EXCLUSIVE,
    (FROZEN, "refresh"): _EXCLUSIVE,
    (RUNNING, "move"): _NOT_LIVE,
    (FROZEN, "move"): _NOT_LIVE,
    (RUNNING, "rebuild"): "Instance must be stopped to be rebuilt",
    (FROZEN, "rebuild"): "Instance must be stopped to be rebuilt",
    (RUNNING, "rename"): "Renaming of running container not allowed",
    (FROZEN, "rename"): "Renaming of running container not allowed",
}


def after(state: str, event: str, name: str) -> str:
    """Return the state an event leads to. Raises: WrongState, saying why not."""
    found = _TABLE.get((state, event))
    if found is None:
        why = _WHY.get((state, event), f"The instance is {state}; it cannot {event} now")
        raise WrongState("WRONG_STATE", why, about=name)
    return found
