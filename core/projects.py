"""Where the objects of a project live: in it, or in the default project that it shares them with."""

from __future__ import annotations

from core.errors import NotFound
from core.records import Project
from core.state import keys
from core.state.cache import Cache
from core.units import parse_bool

DEFAULT = "default"


def home_of(projects: Cache[Project], project: str, feature: str) -> str:
    """Return the project whose objects *project* uses; *feature* is images, profiles or networks.

    Raises: NotFound.
    """
    entry = projects.get(keys.project(project))
    if entry is None:
        raise NotFound("NO_PROJECT", "Project not found", about=project)
    has_own = parse_bool(entry.record.config.get(f"features.{feature}", "false"))
    return project if has_own else DEFAULT
