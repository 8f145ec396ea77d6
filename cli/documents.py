"""YAML as the stock client writes it, and editing it: from a pipe, or in the user's editor."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from cli.failure import CliError

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(yaml.SafeDumper):
    """Writes times plain and strings that look like something else in double quotes, as go-yaml does."""


class _Loader(_BASE):  # type: ignore[misc]
    """Reads times as the text they are."""


def _without_times(resolvers: Any) -> Any:
    return {first: [pair for pair in pairs if pair[0] != _TIMESTAMP] for first, pairs in resolvers.items()}


_Dumper.yaml_implicit_resolvers = _without_times(yaml.SafeDumper.yaml_implicit_resolvers)
_Loader.yaml_implicit_resolvers = _without_times(yaml.SafeLoader.yaml_implicit_resolvers)


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    tag = "tag:yaml.org,2002:str"
    if "\n" in text:
        return dumper.represent_scalar(tag, text, style="|")
    looks_like = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return dumper.represent_scalar(tag, text, style=None if looks_like == tag else '"')


_Dumper.add_representer(str, _represent)


def dump(value: Any) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=1 << 30,
    )
    return text


def load(text: str) -> Any:
    """Raises: CliError naming the place."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader that reads times as text)
    except yaml.YAMLError as exc:
        raise CliError(
            "the YAML cannot be read", str(exc), "check indentation and quotes near there"
        ) from exc


def load_map(text: str) -> dict[str, Any]:
    """Return a mapping; an empty document is an empty one. Raises: CliError."""
    value = load(text)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CliError(
            "the YAML is not a mapping", f"it is a {type(value).__name__}", "write KEY: VALUE lines"
        )
    return value


def ordered(value: dict[str, Any], first: Iterable[str]) -> dict[str, Any]:
    """Return *value* with the keys *first* in that order, and what is below sorted by key."""
    known = {key: sorted_maps(value[key]) for key in first if key in value}
    return known | {key: sorted_maps(item) for key, item in value.items() if key not in known}


def sorted_maps(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_maps(value[key]) for key in sorted(value)}
    return value


def edit(text: str, save: Callable[[str], None]) -> None:
    """Save what a pipe brings, or what the editor makes of *text*; a refused edit may be tried again."""
    if not sys.stdin.isatty():
        save(sys.stdin.read())
        return
    while True:
        text = in_editor(text, ".yaml")
        try:
            save(text)
            return
        except CliError as exc:
            sys.stderr.write(f"{exc.why}\nPress enter to edit again, or ctrl-c to give up.\n")
            if not sys.stdin.readline():
                raise


def in_editor(text: str, suffix: str) -> str:
    """Return what the user's editor left of *text*. Raises: CliError."""
    with tempfile.NamedTemporaryFile("w+", suffix=suffix, prefix="podium-") as file:
        file.write(text)
        file.flush()
        run_editor(file.name)
        with open(file.name) as edited:
            return edited.read()


def run_editor(path: str) -> None:
    """Raises: CliError where there is no editor, or it failed."""
    import shlex
    import subprocess

    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(command), path], check=False).returncode
    except FileNotFoundError as exc:
        raise CliError("no editor was found", f"{command} is not installed", "EDITOR=nano podium …") from exc
    if code:
        raise CliError(
            "nothing was changed", f"{command} ended with code {code}", "save and leave the editor"
        )
