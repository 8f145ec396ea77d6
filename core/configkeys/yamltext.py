"""Values that are YAML: what cloud-init is given. Never builds what a text says, so a bomb stays a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.configkeys.schema import lines

# What lies within what costs the reader time for each level above it.
_MOST_LEVELS = 64


def parse_yaml(text: str) -> str:
    """Return YAML text that is a map or nothing."""
    import yaml  # here, since most processes never need its 2 MB

    lines(text)
    try:
        _check_events(yaml.parse(text, Loader=yaml.CSafeLoader))
    except yaml.YAMLError as exc:
        raise ValueError(f"yaml: {_place(exc)}{getattr(exc, 'problem', '') or 'it cannot be read'}") from None
    return text


def parse_user_data(text: str) -> str:
    """Return user or vendor data of cloud-init; what says that it is a configuration is YAML, of a map."""
    header, _, rest = lines(text).partition("\n")
    if header == "#cloud-config":
        parse_yaml(rest)
    return text


def _check_events(events: Iterable[Any]) -> None:
    """Look at each event of a YAML text. Raises: ValueError, for what is too deep or no map."""
    import yaml

    depth = 0
    roots: list[Any] = []
    for event in events:
        if not roots and isinstance(event, yaml.NodeEvent):
            roots.append(event)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_LEVELS:
            raise ValueError(f"yaml: it is nested more than {_MOST_LEVELS} deep")
    for root in roots:
        _check_root(root)


def _check_root(event: Any) -> None:
    """Raises: ValueError, in the words of LXD's library, when *event* begins no map and is not null."""
    import yaml

    if isinstance(event, yaml.MappingStartEvent):
        return
    if isinstance(event, yaml.AliasEvent):
        raise ValueError(f"yaml: unknown anchor '{str(event.anchor)[:64]}' referenced")
    found = "!!seq"
    if isinstance(event, yaml.ScalarEvent):
        tag = event.tag or _tag_of(event)
        if tag == "tag:yaml.org,2002:null":
            return
        value = event.value if len(event.value) <= 10 else f"{event.value[:7]}..."
        found = f"{tag.replace('tag:yaml.org,2002:', '!!')[:64]} `{value}`"
    line = event.start_mark.line + 1
    raise ValueError(f"yaml: unmarshal errors:\n  line {line}: cannot unmarshal {found} into struct {{}}")


def _tag_of(scalar: Any) -> str:
    import yaml

    resolver: Any = yaml.SafeLoader("")
    return str(resolver.resolve(yaml.ScalarNode, scalar.value, scalar.implicit))


def _place(error: Any) -> str:
    """Return "line N: " as LXD's library counts: from nought, but what no token could be made of from one."""
    import yaml

    problem, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    line = context.line if context else 0
    if problem and problem.line:
        line = problem.line + isinstance(error, yaml.scanner.ScannerError)
    return f"line {line}: " if line else ""
