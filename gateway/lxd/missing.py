"""How LXD says that a project is not there, which depends on what was looked for in it."""

from __future__ import annotations

_BY_KIND = {
    "images": "Check if project has images: fetch project: Project not found",
    "profiles": 'Failed loading project "{}": Project not found',
    "networks": 'Failed to load project "{}": Project not found',
    "network-acls": 'Failed to load project "{}": Project not found',
    "storage-pools": 'Failed to load project "{}": Project not found',
}
# What is the server's. Who was switched to a project that went gets out by it, with `lxc project switch`.
_OF_SERVER = frozenset(
    {"", "projects", "certificates", "cluster", "metrics", "operations", "resources", "warnings"}
)
_INSTANCES = frozenset({"instances", "containers", "virtual-machines"})


def unknown_project(method: str, path: str, project: str) -> str:
    """Return the sentence for a request of *path* below /1.0 that names an unknown *project*.

    "" where LXD does not ask for the project, since the answer has nothing to do with it.
    """
    parts = path.rstrip("/").split("/")[2:]
    kind = parts[0] if parts else ""
    if kind in _OF_SERVER or _is_pool(parts):
        return ""
    if kind in _INSTANCES:
        if method == "POST" and len(parts) == 1:
            return "Failed loading project: Project not found"
        return "Instance not found" if len(parts) > 1 else "Project not found"
    if kind == "storage-pools" and method == "GET" and parts[-1] in ("volumes", "custom"):
        return "Project not found"
    return _BY_KIND.get(kind, "Project not found").format(project[:64])


def _is_pool(parts: list[str]) -> bool:
    """Say whether it is about pools themselves, which are no project's, and not about what is in them."""
    return parts[0] == "storage-pools" and (len(parts) < 3 or parts[2] == "resources")
