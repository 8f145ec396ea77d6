"""`podium exec` and `podium shell`: a command in an instance, its streams and its exit code."""

from __future__ import annotations

import os
import signal
from typing import Any

from cli import channels, terminal
from cli.call import Call
from cli.failure import Refused, explain
from cli.server import url

_PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGABRT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def run(call: Call) -> int:
    return execute(call, call.words[0], call.words[1:])


def shell(call: Call) -> int:
    return execute(call, call.words[0], ["su", "-l"])


def is_interactive(call: Call) -> bool:
    """Tell whether to ask for a terminal: when ours is one, unless told otherwise."""
    mode = call.text("mode", "auto")
    if mode not in ("auto", "interactive", "non-interactive"):
        raise call.misuse(f"there is no mode {mode!r}", "modes are auto, interactive and non-interactive")
    if call.on("force-interactive") and call.on("force-noninteractive"):
        raise call.misuse("-t and -T do not go together", "one asks for a terminal and one for none")
    if call.on("force-interactive") or mode == "interactive":
        return True
    if call.on("force-noninteractive") or mode == "non-interactive":
        return False
    return not call.on("disable-stdin") and terminal.is_terminal(0, 1)


def request_body(call: Call, command: list[str]) -> dict[str, Any]:
    interactive = is_interactive(call)
    environment = {"TERM": os.environ["TERM"]} if interactive and os.environ.get("TERM") else {}
    columns, rows = terminal.size() if interactive else (0, 0)
    return {
        "command": command,
        "wait-for-websocket": True,
        "interactive": interactive,
        "environment": environment | call.pairs(call.texts("env")),
        "width": columns,
        "height": rows,
        "user": call.number("user"),
        "group": call.number("group"),
        "cwd": call.text("cwd"),
    }


def execute(call: Call, name: str, command: list[str]) -> int:
    body = request_body(call, command)
    operation = call.server.begin("POST", url("instances", name, "exec"), body)["metadata"]
    control = channels.connect(call.server, operation, "control")
    fds = {
        fd: channels.connect(call.server, operation, fd)
        for fd in operation["metadata"]["fds"]
        if fd != "control"
    }
    channels.start(channels.drain, control)
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: channels.tell_signal(control, number))
    if body["interactive"]:
        with terminal.raw():
            channels.follow_resizes(control)
            _carry(call, fds, {"0": 1})
    else:
        _carry(call, fds, {"1": 1, "2": 2})
    return _exit_code(call, operation)


def _carry(call: Call, fds: dict[str, Any], outputs: dict[str, int]) -> None:
    """Move bytes both ways until all outputs have ended."""
    stdin = os.open(os.devnull, os.O_RDONLY) if call.on("disable-stdin") else 0
    channels.start(channels.send_input, fds["0"], stdin)
    for thread in [channels.start(channels.receive_output, fds[name], fd) for name, fd in outputs.items()]:
        thread.join()


def _exit_code(call: Call, operation: dict[str, Any]) -> int:
    done = call.server.final(operation)
    code = (done["metadata"] or {}).get("return")
    if done["status_code"] == 200:
        return int(code or 0)
    if code is None:
        raise Refused(400, done["err"])
    terminal.warn(explain(Refused(400, done["err"]), "exec", call.words))
    return int(code)
