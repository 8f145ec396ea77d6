"""Recipes of images as people write them: a small YAML (docs/recipes.md). Pure."""

from __future__ import annotations

import re
from typing import Any

import yaml

from core.errors import Invalid
from services.image.domain import boundedyaml
from services.image.sources.recipe import Recipe, RecipeFile, recipe_of

MAX_BYTES = 1 << 20
_MOST_EVENTS = 20_000
_FIELDS = ("distribution", "release", "variant", "packages", "files")
_FILE_FIELDS = ("path", "content", "mode")


def bad(why: str) -> Invalid:
    return Invalid("BAD_RECIPE", f"The recipe cannot be used: {why}")


def parse(text: bytes) -> Recipe:
    """Raises: Invalid, naming the field."""
    if len(text) > MAX_BYTES:
        raise bad(f"it is larger than {MAX_BYTES} bytes")
    # All that is not structure stays text: releases and modes look like numbers.
    data = boundedyaml.load(text, yaml.BaseLoader, most_events=_MOST_EVENTS, bad=bad)
    fields = _fields(data, _FIELDS, "a recipe")
    return recipe_of(
        _text(fields, "distribution", "debian"),
        _text(fields, "release"),
        tuple(_text({"packages": name}, "packages") for name in _list(fields, "packages")),
        variant=_text(fields, "variant", "default"),
        files=tuple(map(_file, _list(fields, "files"))),
    )


def _file(given: Any) -> RecipeFile:
    fields = _fields(given, _FILE_FIELDS, "a file")
    path, mode = _text(fields, "path"), _text(fields, "mode", "0644")
    parts = path.split("/")
    if parts[0] or "\0" in path or set(parts[1:]) & {"", ".", ".."} or len(path) > 4000:
        raise bad(f"{path[:80]!r} is no absolute path of a file")
    if not re.fullmatch("0?[0-7]{3,4}", mode):
        raise bad(f"mode {mode[:20]!r} is none; for example 0755")
    return RecipeFile(path[1:], _text(fields, "content", ""), int(mode, 8))


def _fields(given: Any, known: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise bad(f"{what} is a map of {', '.join(known)}")
    if unknown := [key for key in given if key not in known]:
        raise bad(f"{what} has no field {str(unknown[0])[:40]!r}, only {', '.join(known)}")
    return given


def _text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise bad(f"{name} must be a text")
    return value


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields.get(name) or []
    if not isinstance(value, list):
        raise bad(f"{name} must be a list")
    return value
