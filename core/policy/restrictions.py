"""What a restricted project forbids. Pure; the words are LXD's.

Keys and device types that no rule here knows are forbidden: what is added elsewhere has to be let in.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping

from core.configkeys.instance import INSTANCE
from core.configkeys.project import is_restricted, parse_id_ranges, parts, restriction
from core.errors import Forbidden
from core.policy.rawidmap import parse_rawidmap
from core.policy.subjects import Subject
from core.records import Project
from core.units import parse_bool

Config = Mapping[str, str]
Rule = Callable[[Config, str], str]
# What a tenant may set whatever else is blocked.
_FREE = (
    *("limits.", "user.", "environment.", "cloud-init.", "snapshots.", "image.", "linux.sysctl.", "oci."),
    *("boot.autostart", "boot.stop.", "cluster.evacuate", "migration.", "health.", "restart.", "nvidia."),
    *("security.devlxd", "security.guestapi", "security.protection.", "agent.", "security.secureboot"),
    *("security.agent.metrics", "security.csm", "security.sev"),
)
# Set by the server alone, whatever a request holds.
_SERVERS = ("volatile.",)
_LOW_LEVEL = ("security.devlxd.images", "security.guestapi.images")
_INTERCEPTED = frozenset(
    f"security.syscalls.intercept.{name}"
    for name in ("bpf", "bpf.devices", "mknod", "sched_setscheduler", "setxattr", "sysinfo")
)
# Only "full" lets them in: the host's kernel would parse file systems that a guest made.
_MOUNTS = "security.syscalls.intercept.mount"
# They lead what the host itself sends to whatever net a tenant names.
_HOST_ROUTES = tuple(f"{ip}.routes{kind}" for ip in ("ipv4", "ipv6") for kind in ("", ".external"))
_FREE_DEVICES = ("none", "tpm")
_WORDS = {
    "unix-char": "Unix character devices",
    "unix-block": "Unix block devices",
    "unix-hotplug": "Unix hotplug devices",
    "infiniband": "Infiniband devices",
    "gpu": "GPU devices",
    "usb": "USB devices",
    "pci": "PCI devices",
    "proxy": "Proxy devices",
}


def check(project: Project, subjects: Iterable[Subject]) -> None:
    """Raises: Forbidden, naming the key or device of the first subject that does not fit."""
    if not is_restricted(project.config):
        return
    for subject in subjects:
        where = f'{subject.kind} "{subject.name}" of project "{project.name}"'
        for key, value in sorted(subject.config.items()):
            if value:
                _check_key(project.config, key, value, where)
        for name, options in sorted(subject.devices.items()):
            if why := _why_no_device(project.config, options):
                raise _no(f'Invalid device "{name}" on {where}: {why}', name)


def check_volatile(project: Project, name: str, wanted: Config, current: Config) -> None:
    """Check the volatile keys of a request to change an instance. Raises: Forbidden."""
    if not is_restricted(project.config):
        return
    for key, value in sorted(wanted.items()):
        if key.startswith("volatile.") and current.get(key) != value:
            raise _no(
                f'Setting "{key[:80]}" on container "{name}" in project "{project.name}" is forbidden', key
            )


def check_snapshots(project: Project) -> None:
    """Raises: Forbidden."""
    _check_allowed(project, "restricted.snapshots", "snapshot")


def check_backups(project: Project) -> None:
    """Raises: Forbidden."""
    _check_allowed(project, "restricted.backups", "backup")


def check_network(project: Project, network: str) -> None:
    """Check that a project may use, see and change a managed network. Raises: Forbidden."""
    if not may_use_network(project.config, network, is_managed=True):
        raise _no("Network not allowed in project", network)


def check_zone(project: Project, zone: str) -> None:
    """Check that a project may have a DNS zone: one that it is told, or one below. Raises: Forbidden."""
    if not is_restricted(project.config):
        return
    allowed = parts(project.config.get("restricted.networks.zones", ""))
    if not any(zone == name or zone.endswith(f".{name}") for name in allowed):
        raise _no("Network zone not allowed in project", zone)


def may_use_network(config: Config, network: str, *, is_managed: bool) -> bool:
    if not is_restricted(config):
        return True
    nic, access = restriction(config, "restricted.devices.nic"), config.get("restricted.networks.access", "")
    if nic == "block" or (nic == "managed" and not is_managed):
        return False
    return not access or network in parts(access)


def allowed_parent(config: Config, source: str) -> str | None:
    """Return below which folder *source* lies that a project may mount; None when there is none.

    Whoever opens it must not leave that folder, since a link on the way may lead anywhere.
    """
    paths = parts(config.get("restricted.devices.disk.paths", ""))
    if not is_restricted(config) or not paths:
        return "/"
    wanted = posixpath.normpath(source)
    for path in (posixpath.normpath(path) for path in paths):
        if wanted == path or wanted.startswith(path.rstrip("/") + "/"):
            return path
    return None


def _check_allowed(project: Project, key: str, what: str) -> None:
    if is_restricted(project.config) and restriction(project.config, key) == "block":
        raise _no(f'Project "{project.name}" doesn\'t allow for {what} creation', project.name)


# --- keys ------------------------------------------------------------------------------------------


def _check_key(config: Config, written: str, value: str, where: str) -> None:
    key = INSTANCE.aliases.get(written, written)
    if key in _RULES:
        if why := _RULES[key](config, value):
            raise _no(f'Invalid value "{value[:64]}" for config "{key}" on {where}: {why}', key)
        return
    is_full = restriction(config, "restricted.containers.interception") == "full"
    if restriction(config, "restricted.containers.lowlevel") == "allow" or (
        is_full and key.startswith(_MOUNTS)
    ):
        return
    if key == "raw.idmap":
        _check_idmap(config, value, where)
    elif key in _LOW_LEVEL or not key.startswith((*_FREE, *_SERVERS)):
        raise _no(f'Use of low-level config "{written[:80]}" on {where} is forbidden', key)


def _nesting(config: Config, value: str) -> str:
    is_allowed = restriction(config, "restricted.containers.nesting") == "allow"
    return "" if is_allowed or not _is_true(value) else "Container nesting is forbidden"


def _privileged(config: Config, value: str) -> str:
    is_allowed = restriction(config, "restricted.containers.privilege") == "allow"
    return "" if is_allowed or not _is_true(value) else "Privileged containers are forbidden"


def _isolated(config: Config, value: str) -> str:
    """Unset is allowed: every container here has a range of ids of its own."""
    must = restriction(config, "restricted.containers.privilege") == "isolated"
    return "Non-isolated containers are forbidden" if must and not _is_true(value) else ""


def _intercepted(config: Config, value: str) -> str:
    is_blocked = restriction(config, "restricted.containers.interception") == "block"
    return "Container syscall interception is forbidden" if is_blocked and not _is_false(value) else ""


_RULES: Mapping[str, Rule] = {
    "security.nesting": _nesting,
    "security.privileged": _privileged,
    "security.idmap.isolated": _isolated,
    **dict.fromkeys(_INTERCEPTED, _intercepted),
}


def _check_idmap(config: Config, value: str, where: str) -> None:
    allowed = {kind: parse_id_ranges(config.get(f"restricted.idmap.{kind}", "")) for kind in ("uid", "gid")}
    try:
        entries = parse_rawidmap(value)
    except ValueError as exc:
        raise _no(f'Invalid value for config "raw.idmap" on {where}: {exc}', "raw.idmap") from None
    for number, entry in enumerate(entries):
        for kind in entry.kinds:
            if not any(entry.host.start in r and entry.host.stop - 1 in r for r in allowed[kind]):
                raise _no(
                    f'Use of low-level "raw.idmap" element {number} on {where} is forbidden', "raw.idmap"
                )


def _is_true(value: str) -> bool:
    """What cannot be read counts as true: it is refused elsewhere, in better words."""
    return not _is_false(value)


def _is_false(value: str) -> bool:
    try:
        return not parse_bool(value)
    except ValueError:
        return False


# --- devices ---------------------------------------------------------------------------------------


def _why_no_device(config: Config, options: Config) -> str:
    kind = options.get("type", "")
    if kind in _FREE_DEVICES:
        return ""
    if kind == "disk":
        return _why_no_disk(config, options)
    if kind == "nic":
        return _why_no_nic(config, options)
    if kind not in _WORDS:
        return f'Devices of type "{kind[:32]}" are forbidden'
    is_allowed = restriction(config, f"restricted.devices.{kind}") == "allow"
    return "" if is_allowed else f"{_WORDS[kind]} are forbidden"


def _why_no_disk(config: Config, options: Config) -> str:
    pool, rule = options.get("pool"), restriction(config, "restricted.devices.disk")
    if options.get("path") == "/" and pool:
        return ""
    if rule == "block":
        return "Disk devices are forbidden"
    if pool:
        return ""
    if rule == "managed":
        return "Attaching disks not backed by a pool is forbidden"
    source = options.get("source", "")
    return "" if allowed_parent(config, source) else f'Disk source path "{source}" not allowed'


def _why_no_nic(config: Config, options: Config) -> str:
    rule, network = restriction(config, "restricted.devices.nic"), options.get("network", "")
    if rule == "block":
        return "Network devices are forbidden"
    if rule == "managed" and not network:
        return "Only managed network devices are allowed"
    if rule == "managed" and any(options.get(key) for key in _HOST_ROUTES):
        return "Routes on the host are forbidden"
    name = network or options.get("parent", "")
    if name and not may_use_network(config, name, is_managed=bool(network)):
        return "Network not allowed in project"
    return ""


def _no(message: str, about: str) -> Forbidden:
    return Forbidden("RESTRICTED", message, about=about)
