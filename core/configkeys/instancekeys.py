"""The table of instances' keys: every key that LXD documents is here, with its effect or why it is refused.

A key that is not live is stored and takes effect at the next start, as with LXD. docs/config-keys.md is
written from this table.
"""

from __future__ import annotations

from core.configkeys.schedule import parse_schedule
from core.configkeys.schema import ConfigKey, Parser, lines, one_of, text
from core.configkeys.values import (
    off,
    parse_command,
    parse_count,
    parse_folder,
    parse_http_target,
    parse_modules,
    parse_port,
    parse_program,
    parse_seconds,
    parse_signal,
    parse_snapshot_expiry,
    parse_some_seconds,
    parse_syscalls,
    parse_tries,
    parse_uint32,
)
from core.configkeys.yamltext import parse_user_data, parse_yaml
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
_APPARMOR = "profiles are not written by tenants; containers are confined by their user namespace and seccomp"
_SECCOMP = "it replaces the whole filter; use security.syscalls.deny or security.syscalls.allow"
_INTERCEPT = "system calls are not carried out by the host on a container's behalf"
_MIGRATION = "memory is not copied while a container runs"
_NVIDIA = "the NVIDIA container tools couldn't be found"
_BPF = "it hands the kernel's BPF verifier to guests"


def _k(name: str, parse: Parser, doc: str, default: str = "", live: bool = False, at: str = "") -> ConfigKey:
    return ConfigKey(name, parse, doc, default, live, applied=at)


def _no(name: str, why: str) -> ConfigKey:
    return ConfigKey(name, refused=why)


def _off(name: str, why: str) -> ConfigKey:
    """A switch that cannot be on: false is taken, since configurations are written with it."""
    return ConfigKey(name, off(f"{name} is not supported: {why}"), f"can only be false: {why}", "false")


def _vm(name: str, parse: Parser = text) -> ConfigKey:
    """Other kinds of instances have it, so a profile may hold it, but it is unknown to ours."""
    return ConfigKey(name, parse, "of virtual machines; has no effect here")


_BOOT = (
    _k(
        "boot.autostart",
        parse_bool,
        "start with the host; unset: as it was when the host went down",
        at="host boot",
    ),
    _k(
        "boot.autostart.delay",
        parse_int,
        "seconds to wait before the next one starts",
        "0",
        True,
        "host boot",
    ),
    _k("boot.autostart.priority", parse_int, "higher starts first", "0", True, "host boot"),
    _k("boot.stop.priority", parse_int, "higher stops first", "0", True, "host shutdown"),
    _k("boot.host_shutdown_timeout", parse_int, "seconds for a clean stop", "30", True, "host shutdown"),
)
_GUEST = (
    _k("cloud-init.network-config", parse_yaml, "for cloud-init inside", at="guest API, templates"),
    _k("cloud-init.user-data", parse_user_data, "for cloud-init inside", at="guest API, templates"),
    _k("cloud-init.vendor-data", parse_user_data, "for cloud-init inside", at="guest API, templates"),
    _k("security.devlxd", parse_bool, "whether /dev/lxd/sock is there", "true", True, "guest API"),
    _k("security.devlxd.images", parse_bool, "guest may export images", "false", True, "guest API"),
)
_LIMITS = (
    _k("limits.cpu", parse_cpus, "number of CPUs, or a set such as 0-3,7", "", True, "cpuset.cpus"),
    _k(
        "limits.cpu.allowance",
        parse_allowance,
        "50% (share) or 25ms/100ms (hard)",
        "100%",
        True,
        "cpu.shares or cpu.cfs_quota_us; cpu.weight or cpu.max",
    ),
    _k(
        "limits.cpu.priority",
        parse_priority,
        "tie-break between equal shares",
        "10",
        True,
        "cpu.shares; cpu.weight",
    ),
    _k(
        "limits.disk.priority",
        parse_priority,
        "weight of disk requests",
        "5",
        True,
        "blkio.bfq.weight; io.weight",
    ),
    _k(
        "limits.memory",
        check_memory,
        "bytes, or share of the host's memory",
        "",
        True,
        "memory.limit_in_bytes; memory.max",
    ),
    _k(
        "limits.memory.enforce",
        one_of("soft", "hard"),
        "whether it may be exceeded while memory is free",
        "hard",
        True,
        "memory.soft_limit_in_bytes; memory.high",
    ),
    _k("limits.memory.swap", parse_bool, "may swap", "true", True, "memory.swappiness; memory.swap.max"),
    _k(
        "limits.memory.swap.priority",
        parse_priority,
        "higher is swapped later",
        "10",
        True,
        "memory.swappiness",
    ),
    _k(
        "limits.network.priority",
        parse_priority,
        "kept for LXD's clients",
        "0",
        True,
        "nothing: bound NICs by their own limits.*",
    ),
    _k("limits.processes", parse_count, "most tasks", "", True, "pids.max"),
    *(
        _k(
            f"limits.hugepages.{size}",
            parse_bytes,
            f"most memory in pages of {size}",
            "",
            True,
            f"hugetlb.{size}",
        )
        for size in ("64KB", "1MB", "2MB", "1GB")
    ),
)
_SECURITY = (
    _k("security.nesting", parse_bool, "allow containers inside", "false", at="/sys and /proc inside"),
    _k(
        "security.privileged",
        parse_bool,
        "no user namespace: root inside is root of the host",
        "false",
        at="uid_map",
    ),
    _k("security.idmap.base", parse_uint32, "first host id of its range; chosen when unset", at="uid_map"),
    _k(
        "security.idmap.isolated",
        parse_bool,
        "own range of ids (always the case here)",
        "false",
        at="uid_map",
    ),
    _k("security.idmap.size", parse_uint32, "number of ids", "65536", at="uid_map"),
    _k("raw.idmap", lines, 'host ids inside: lines "both|uid|gid HOST[-LAST] INSIDE[-LAST]"', at="uid_map"),
    _k("security.protection.delete", parse_bool, "refuse deletion", "false", True, "the API"),
    _k(
        "security.protection.shift",
        parse_bool,
        "refuse to shift files (never done here)",
        "false",
        True,
        "nothing",
    ),
    _k("security.protection.start", parse_bool, "refuse to start", "false", True, "the API"),
    _k(
        "security.syscalls.allow", parse_syscalls, "the only system calls that work, one a line", at="seccomp"
    ),
    _k("security.syscalls.deny", parse_syscalls, "system calls that fail, one a line", at="seccomp"),
    _k("security.syscalls.deny_default", parse_bool, "deny what is dangerous", "true", at="seccomp"),
    _off("security.syscalls.deny_compat", "liblxc's filter cannot tell 32-bit system calls from others"),
)
_RECORD = (
    _k(
        "cluster.evacuate",
        one_of("auto", "migrate", "live-migrate", "stop"),
        "on evacuation",
        "auto",
        True,
        "evacuation",
    ),
    _k("linux.kernel_modules", parse_modules, "modules that must be loaded on the host already", at="start"),
    _k(
        "linux.kernel_modules.load",
        one_of("boot", "ondemand"),
        "nothing is loaded either way",
        "boot",
        at="nothing",
    ),
    _k("snapshots.schedule", parse_schedule, "when to take snapshots", "", True, "the scheduler"),
    _k("snapshots.schedule.stopped", parse_bool, "also while stopped", "false", True, "the scheduler"),
    _k("snapshots.pattern", text, "names of snapshots", "snap%d", True, "new snapshots"),
    _k("snapshots.expiry", parse_snapshot_expiry, "life of snapshots", "", True, "new snapshots"),
    _k(
        "migration.incremental.memory.goal",
        parse_uint32,
        "unused without migration.incremental.memory",
        "70",
        True,
        "nothing",
    ),
    _k(
        "migration.incremental.memory.iterations",
        parse_uint32,
        "unused without migration.incremental.memory",
        "10",
        True,
        "nothing",
    ),
    _k("nvidia.driver.capabilities", text, "unused without nvidia.runtime", "compute,utility", at="nothing"),
    _k("nvidia.require.cuda", text, "unused without nvidia.runtime", at="nothing"),
    _k("nvidia.require.driver", text, "unused without nvidia.runtime", at="nothing"),
)
_OURS = (
    _k(
        "restart.policy",
        one_of("no", "on-failure", "always"),
        "start it again when it ended by itself",
        "no",
        True,
        "the supervisor",
    ),
    _k(
        "restart.backoff.initial",
        parse_seconds,
        "seconds before the first restart; they double",
        "1",
        True,
        "the supervisor",
    ),
    _k("restart.backoff.max", parse_seconds, "most seconds before a restart", "300", True, "the supervisor"),
    _k(
        "restart.backoff.reset",
        parse_seconds,
        "seconds it must run to begin anew",
        "60",
        True,
        "the supervisor",
    ),
    _k(
        "restart.attempts", parse_tries, "most restarts in a row; 0 for no bound", "0", True, "the supervisor"
    ),
    _k(
        "health.exec",
        parse_command,
        "command inside that succeeds while all is well",
        "",
        True,
        "the health check",
    ),
    _k("health.tcp", parse_port, "port that accepts connections", "", True, "the health check"),
    _k(
        "health.http",
        parse_http_target,
        "PORT/PATH that answers with 2xx or 3xx",
        "",
        True,
        "the health check",
    ),
    _k("health.interval", parse_some_seconds, "seconds between checks", "30", True, "the health check"),
    _k(
        "health.timeout",
        parse_some_seconds,
        "seconds within which it must answer",
        "5",
        True,
        "the health check",
    ),
    _k(
        "health.retries",
        parse_count,
        "bad answers in a row that make it unhealthy",
        "3",
        True,
        "the health check",
    ),
    _k(
        "health.start_period",
        parse_seconds,
        "seconds in which bad answers prove nothing",
        "30",
        True,
        "the health check",
    ),
    _k(
        "health.action",
        one_of("none", "restart"),
        "what happens when it becomes unhealthy",
        "restart",
        True,
        "the health check",
    ),
)
_APPLICATION = (
    _k("oci.entrypoint", parse_program, "program to run in place of a system's init", at="/proc/1/cmdline"),
    _k("oci.cwd", parse_folder, "folder it runs in", "/", at="/proc/1/cwd"),
    _k("oci.uid", parse_uint32, "user it runs as", "0", at="/proc/1/status"),
    _k("oci.gid", parse_uint32, "group it runs as", "0", at="/proc/1/status"),
    _k("oci.stop_signal", parse_signal, "what asks it to end", "SIGTERM", at="stop"),
)
_REFUSED = (
    _no("raw.lxc", _LOW_LEVEL),
    _no("raw.apparmor", _APPARMOR),
    _no("raw.seccomp", _SECCOMP),
    *(
        _off(f"security.syscalls.intercept.{name}", _INTERCEPT)
        for name in (
            "bpf",
            "bpf.devices",
            "mknod",
            "mount",
            "mount.shift",
            "sched_setscheduler",
            "setxattr",
            "sysinfo",
        )
    ),
    *(_no(f"security.syscalls.intercept.mount.{name}", _INTERCEPT) for name in ("allowed", "fuse")),
    _off("migration.incremental.memory", _MIGRATION),
    _off("nvidia.runtime", _NVIDIA),
    *(
        _no(f"security.delegate_bpf{n}", _BPF)
        for n in ("", ".attach_types", ".cmd_types", ".map_types", ".prog_types")
    ),
    _no("security.devlxd.management.volumes", "guests do not manage volumes"),
    _no("ubuntu_pro.guest_attach", "there is no Ubuntu Pro service here"),
    _no("limits.cpu.nodes", "give the CPUs of the node in limits.cpu"),
    _no("placement.group", "placement groups are not available in this version"),
)
MACHINES = (
    _vm("agent.nic_config", parse_bool),
    _vm("boot.debug_edk2", parse_bool),
    _vm("boot.mode"),
    _vm("limits.cpu.pin_strategy"),
    _vm("limits.max_bus_ports", parse_int),
    _vm("limits.memory.hugepages", parse_bool),
    _vm("migration.stateful", parse_bool),
    _vm("security.agent.metrics", parse_bool),
    _vm("security.csm", parse_bool),
    _vm("security.secureboot", parse_bool),
    _vm("security.sev", parse_bool),
    _vm("security.sev.policy.es", parse_bool),
    _vm("security.sev.session.data"),
    _vm("security.sev.session.dh"),
)
KEYS = (*_BOOT, *_GUEST, *_LIMITS, *_SECURITY, *_RECORD, *_OURS, *_APPLICATION, *_REFUSED)
SYSCALLS = "security.syscalls."
ALIASES = {
    f"{SYSCALLS}whitelist": f"{SYSCALLS}allow",
    f"{SYSCALLS}blacklist": f"{SYSCALLS}deny",
    f"{SYSCALLS}blacklist_default": f"{SYSCALLS}deny_default",
    f"{SYSCALLS}blacklist_compat": f"{SYSCALLS}deny_compat",
    "security.guestapi": "security.devlxd",
    "security.guestapi.images": "security.devlxd.images",
}
