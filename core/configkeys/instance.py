"""Keys of instances and profiles."""

from __future__ import annotations

from core.configkeys.schema import ConfigKey, Schema, lines, one_of, text
from core.units import (
    check_memory,
    parse_allowance,
    parse_bool,
    parse_bytes,
    parse_cpus,
    parse_int,
    parse_priority,
)

_LOW_LEVEL = "it would let a tenant write the engine's configuration; use the typed keys instead"
_SYSCALLS = "the system call filter is the same for all containers"
_SYSCALL_KEYS = (
    *("allow", "deny", "deny_default", "deny_compat", "whitelist", "blacklist"),
    *("blacklist_default", "blacklist_compat"),
    *(f"intercept.{n}" for n in ("bpf", "bpf.devices", "mknod", "mount", "sched_setscheduler", "setxattr")),
    *(f"intercept.mount.{n}" for n in ("allowed", "fuse", "shift")),
)
_MIGRATION = "live migration is not supported"
_VM = "virtual machines are not supported"


def _k(name: str, parse: object, doc: str, default: str = "", live: bool = False) -> ConfigKey:
    return ConfigKey(name, parse, doc, default, live)  # type: ignore[arg-type]


def _count(value: str) -> int:
    if (count := parse_int(value)) < 1:
        raise ValueError(f"{value!r} is not a number above zero")
    return count


def _no(name: str, why: str) -> ConfigKey:
    return ConfigKey(name, refused=why)


KEYS = (
    _k("boot.autostart", parse_bool, "start with the host"),
    _k("boot.autostart.delay", parse_int, "seconds to wait before the next one starts", "0"),
    _k("boot.autostart.priority", parse_int, "higher starts first", "0"),
    _k("boot.stop.priority", parse_int, "higher stops first", "0"),
    _k("boot.host_shutdown_timeout", parse_int, "seconds for a clean stop at host shutdown", "30", True),
    _k("cloud-init.network-config", lines, "for cloud-init inside"),
    _k("cloud-init.user-data", lines, "for cloud-init inside"),
    _k("cloud-init.vendor-data", lines, "for cloud-init inside"),
    _k("cluster.evacuate", one_of("auto", "migrate", "live-migrate", "stop"), "on evacuation", "auto", True),
    _k("limits.cpu", parse_cpus, "number of CPUs, or a set such as 0-3,7", "", True),
    _k("limits.cpu.allowance", parse_allowance, "50% (share) or 25ms/100ms (hard)", "100%", True),
    _k("limits.cpu.priority", parse_priority, "tie-break between equal shares", "10", True),
    _k("limits.disk.priority", parse_priority, "weight of disk requests", "5", True),
    _k("limits.memory", check_memory, "bytes or share of the host", "", True),
    _k("limits.memory.enforce", one_of("hard", "soft"), "hard limit or reclaim target", "hard", True),
    _k("limits.memory.swap", parse_bool, "may swap", "true", True),
    _k("limits.memory.swap.priority", parse_priority, "higher is swapped later", "10", True),
    _k("limits.network.priority", parse_priority, "priority of traffic", "0", True),
    _k("limits.processes", _count, "most tasks", "", True),
    *(
        _k(f"limits.hugepages.{s}", parse_bytes, "huge pages", "", True)
        for s in ("64KB", "1MB", "2MB", "1GB")
    ),
    _k("security.devlxd", parse_bool, "guest API socket", "true"),
    _k("security.devlxd.images", parse_bool, "guest may export images", "false"),
    _k("security.idmap.isolated", parse_bool, "own id range (always the case here)", "true"),
    _k("security.idmap.size", parse_int, "number of ids"),
    _k("security.nesting", parse_bool, "allow containers inside", "false"),
    _k("security.protection.delete", parse_bool, "refuse deletion", "false", True),
    _k("security.protection.shift", parse_bool, "refuse shifting of files (never done here)", "false", True),
    _k("snapshots.schedule", text, "when to take snapshots", "", True),
    _k("snapshots.schedule.stopped", parse_bool, "also while stopped", "false", True),
    _k("snapshots.pattern", text, "names of snapshots", "snap%d", True),
    _k("snapshots.expiry", text, "life of snapshots", "", True),
    _no("security.privileged", "containers here always have their own user namespace"),
    *(_no(f"raw.{n}", _LOW_LEVEL) for n in ("lxc", "apparmor", "seccomp", "idmap")),
    *(_no(f"raw.{n}", _VM) for n in ("qemu", "qemu.conf")),
    *(_no(n, _VM) for n in ("agent.nic_config", "limits.memory.hugepages", "security.secureboot")),
    *(_no(f"security.syscalls.{n}", _SYSCALLS) for n in _SYSCALL_KEYS),
    *(_no(f"migration.incremental.memory{n}", _MIGRATION) for n in ("", ".goal", ".iterations")),
    _no("migration.stateful", _VM),
    _no("security.agent.metrics", _VM),
    _no("security.idmap.base", "Podium chooses the base so that no two containers share ids"),
    *(
        _no(f"nvidia.{n}", "GPU devices are not supported")
        for n in ("runtime", "driver.capabilities", "require.cuda", "require.driver")
    ),
    _no("linux.kernel_modules", "loading host modules for a guest is the administrator's work"),
)
FAMILIES = {
    "user.": lines,
    "environment.": text,
    "image.": text,
    "volatile.": lines,
    "limits.kernel.": text,
    "linux.sysctl.": text,
}
INSTANCE = Schema("instance", KEYS, FAMILIES)
PROFILE = Schema("profile", KEYS, {k: v for k, v in FAMILIES.items() if k not in ("image.", "volatile.")})
