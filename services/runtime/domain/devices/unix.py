"""unix-char, unix-block: a node of the host, or one made from numbers."""

from __future__ import annotations

import posixpath

from core.configkeys.devices.unix import is_required
from services.runtime.domain.devices.plan import DevicePlan, Facts, HostNode, Node, Options, cannot_start

_KINDS = {"unix-char": "c", "unix-block": "b"}
_MISSING = "The required device path doesn't exist and the major and minor settings are not specified"


def plan(device: str, options: Options, facts: Facts) -> DevicePlan:
    """Without its node a device that is not required has an empty plan, and is watched for."""
    source = posixpath.normpath(options.get("source") or options["path"])
    watched = () if is_required(options) else (_in_dev(device, source),)
    found = _numbered(options) or facts.node(source)
    if found is None:
        if not watched:
            raise cannot_start(device, _MISSING)
        return DevicePlan(device, watched=watched)
    kind = found.kind if found.kind else _KINDS[options["type"]]
    if kind != _KINDS[options["type"]]:
        raise cannot_start(device, f"Path specified is not a {options['type']} device")
    path = options.get("path") or source
    return DevicePlan(device, (node(path, kind, found, options),), watched=watched)


def node(path: str, kind: str, found: HostNode, options: Options) -> Node:
    """Return the node inside, owned as *options* say."""
    return Node(
        posixpath.normpath("/" + path.lstrip("/")),
        kind,
        found.major,
        found.minor,
        int(options.get("uid") or 0),
        int(options.get("gid") or 0),
        int(options.get("mode") or "0660", 8),
    )


def _numbered(options: Options) -> HostNode | None:
    major, minor = options.get("major"), options.get("minor")
    return HostNode("", int(major), int(minor)) if major and minor else None


def _in_dev(device: str, source: str) -> str:
    if not source.startswith("/dev/"):
        raise cannot_start(device, f'Failed to add "{source}" to watch targets: Path needs to be in /dev')
    return source
