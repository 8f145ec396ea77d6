"""`podium`: the everyday verbs with the names and flags of `lxc`, and what the stock client cannot do.

A module is imported by the verb that needs it, so that the command line starts at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from cli.arguments import Parsed, parse
from cli.call import Call
from cli.failure import FAILED, INTERRUPTED, CliError, Refused, explain, render
from cli.verbs import GROUPS, VERBS

VERSION = "0.1.0"
_DEBUG = "the same command with --debug, for the place in the code"


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code."""
    _fill_descriptors()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["__complete"]:
        from cli.completion import complete

        return complete(words[1:])
    try:
        parsed = parse(VERBS, words, GROUPS)
    except CliError as exc:
        sys.stderr.write(exc.lines())
        return exc.code
    return _carry_out(parsed)


def _fill_descriptors() -> None:
    """Open what our caller has closed: else a socket would become standard input, and be read as it."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 (for as long as the process lives)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _carry_out(parsed: Parsed) -> int:
    if "version" in parsed.options and parsed.path != "version":
        print(VERSION)
        return 0
    if parsed.verb is None or "help" in parsed.options:
        from cli.help import page

        print(page(parsed.path, parsed.verb))
        return 0
    return _run(parsed)


def _run(parsed: Parsed) -> int:
    call = Call(parsed)
    try:
        code = _function(parsed)(call) or 0
        sys.stdout.flush()
        return code
    except Refused as exc:
        return _fail(call, exc, explain(exc, parsed.path, parsed.words))
    except CliError as exc:
        return _fail(call, exc, exc.lines())
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has left (`podium list | head -1`); nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as exc:
        # A person is not helped by a traceback; --debug shows it to whoever mends this.
        why = f"{type(exc).__name__}: {exc}"
        return _fail(call, exc, render(f"podium {parsed.path} met something unexpected", why, _DEBUG))


def _fail(call: Call, error: Exception, lines: str) -> int:
    if call.on("debug"):
        import traceback

        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.write(lines)
    return error.code if isinstance(error, CliError) else FAILED


def _function(parsed: Parsed) -> Callable[[Call], int | None]:
    from importlib import import_module

    assert parsed.verb is not None
    module, _, name = parsed.verb.runs.partition(":")
    found: Callable[[Call], int | None] = getattr(import_module(f"cli.{module}"), name)
    return found
