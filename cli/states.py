"""Start, stop, restart, pause and delete instances; several at once run side by side."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from cli.call import Call
from cli.failure import FAILED, CliError, Refused
from cli.server import url

_DOING = {"start": "Starting", "stop": "Stopping", "restart": "Restarting", "freeze": "Pausing"}


def start(call: Call) -> int | None:
    return _change(call, "start")


def stop(call: Call) -> int | None:
    return _change(call, "stop")


def restart(call: Call) -> int | None:
    return _change(call, "restart")


def pause(call: Call) -> int | None:
    return _change(call, "freeze")


def delete(call: Call) -> int:
    return _each(call, call.words, lambda name: _delete(call, name))


def _change(call: Call, action: str) -> int | None:
    names = _names(call, action)
    code = _each(call, names, lambda name: change(call, name, action))
    if call.on("console") and not code:
        from cli.console import attach_to

        return attach_to(call, names[0])
    return code


def _names(call: Call, action: str) -> list[str]:
    if not call.on("all"):
        if not call.words:
            raise call.misuse(f"podium {call.path} needs INSTANCE", "none was named; --all takes all")
        return call.words
    if call.words:
        raise call.misuse("names and --all do not go together", "either names or --all")
    wanted = {"start": {"Stopped", "Frozen"}, "stop": {"Running", "Frozen"}}.get(action, {"Running"})
    found = call.server.get(url("instances"), recursion="1")
    return [item["name"] for item in found if item["status"] in wanted]


def change(call: Call, name: str, action: str) -> None:
    """Bring an instance into another state; starting a paused one lets it go on."""
    is_forced, timeout = call.on("force"), call.number("timeout", -1)
    if action == "start" and call.server.get(url("instances", name))["status"] == "Frozen":
        action = "unfreeze"
    body: dict[str, Any] = {"action": action, "timeout": timeout, "force": is_forced}
    body["stateful"] = call.on("stateful")
    doing = f"{_DOING.get(action, 'Resuming')} {name}"
    call.server.send("PUT", url("instances", name, "state"), body, doing=doing)


def _delete(call: Call, name: str) -> None:
    instance, slash, snapshot = name.partition("/")
    if call.on("interactive") and not _is_sure(name):
        return
    if slash:
        call.server.send(
            "DELETE", url("instances", instance, "snapshots", snapshot), doing=f"Deleting {name}"
        )
        return
    found = call.server.get(url("instances", instance))
    if found["status_code"] not in (0, 102):
        if not call.on("force"):
            raise Refused(400, "The instance is currently running, stop it first or pass --force")
        body = {"action": "stop", "timeout": -1, "force": True, "stateful": False}
        call.server.send("PUT", url("instances", instance, "state"), body, doing=f"Stopping {name}")
        if found["ephemeral"]:
            return
    call.server.send("DELETE", url("instances", instance), doing=f"Deleting {name}")


def _is_sure(name: str) -> bool:
    if not sys.stdin.isatty():
        raise CliError(
            f"{name} was not deleted", "--interactive asks, and nobody can answer", "leave --interactive out"
        )
    return input(f"Remove {name} (yes/no): ").strip().lower() in ("yes", "y")


def _each(call: Call, names: list[str], act: Callable[[str], None]) -> int:
    """Act on one name as it is; on several at once, saying for each what went wrong."""
    if len(names) <= 1:
        for name in names:
            act(name)
        return 0
    errors: dict[str, CliError] = {}
    threads = [threading.Thread(target=_attempt, args=(act, name, errors)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not errors:
        return 0
    failed = [name for name in names if name in errors]
    why = "; ".join(f"{name}: {errors[name].why}" for name in failed)
    what = f"podium {call.path} failed for {len(failed)} of {len(names)}"
    sys.stderr.write(CliError(what, why, f"podium list {failed[0]}").lines())
    return FAILED


def _attempt(act: Callable[[str], None], name: str, errors: dict[str, CliError]) -> None:
    try:
        act(name)
    except CliError as exc:
        errors[name] = exc
    except Exception as exc:
        # A thread's traceback would reach nobody who can say which instance it was about.
        errors[name] = CliError(name, f"{type(exc).__name__}: {exc}", "")
