"""The liblxc configuration of an instance. Pure.

Every value is checked as it is written: one line break in one of them would be a line of its own
(CVE-2026-23953), so control characters are refused here, whoever checked before.
"""

from __future__ import annotations

import re
from pathlib import Path

from core.errors import Invalid
from services.runtime.domain.applications import Application
from services.runtime.domain.idmaps import IdMap
from services.runtime.ports import EnginePlan, Mount, NicPlan

_DROPPED = "mac_admin mac_override sys_time sys_module sys_rawio"
# What every instance may open.
DEVICES = (
    "c *:* m",
    "b *:* m",
    *(f"c 1:{minor} rwm" for minor in (3, 5, 7, 8, 9)),
    *(f"c 5:{minor} rwm" for minor in (0, 1, 2)),
    "c 136:* rwm",
    "c 10:200 rwm",
    "c 10:229 rwm",
)
# Where the init of applications is mounted, and what asks it to end; it passes signals on.
OUR_INIT = "/dev/.init"
STOP_SIGNAL = "lxc.signal.halt"
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,128}")
_ENTRIES = (
    ("/dev/fuse", "dev/fuse", "bind,create=file,optional"),
    ("/dev/net/tun", "dev/net/tun", "bind,create=file,optional"),
    ("/sys/fs/fuse/connections", "sys/fs/fuse/connections", "rbind,create=dir,optional"),
)
# What a system's own init would mount, and programs expect.
_SHARED = [
    "lxc.mount.entry = shm dev/shm tmpfs nosuid,nodev,mode=1777,size=64m,create=dir 0 0",
    "lxc.mount.entry = mqueue dev/mqueue mqueue nosuid,nodev,noexec,create=dir,optional 0 0",
]
# The kernel lets a nested container mount these only where they can be seen whole once.
_NESTED = [
    f"lxc.mount.entry = {kind} dev/.lxc/{kind} {type} create=dir,optional 0 0"
    for kind, type in (("proc", "proc"), ("sys", "sysfs"))
]
# What hangs on an interface of the host, or is one, by liblxc's name.
_ON_PARENT = {"physical": "phys", "macvlan": "macvlan", "ipvlan": "ipvlan"}


def value(text: str) -> str:
    """Return *text* if it fits on one line. Raises: Invalid."""
    if any(ord(c) < 32 or c in "\x7f\x85\u2028\u2029" or "\ud800" <= c <= "\udfff" for c in text):
        raise Invalid("BAD_VALUE", "A value must not contain line breaks or control characters")
    return text


def name(text: str) -> str:
    """Return *text* if it may be part of a key. Raises: Invalid."""
    if not _NAME.fullmatch(text):
        raise Invalid("BAD_NAME", f"Invalid name {text[:64]!r}", about=text[:64])
    return text


def _path(text: str) -> str:
    """Return a path for lxc.mount.entry, which is split at blanks as fstab is."""
    return value(text).replace("\\", "\\134").replace(" ", "\\040").replace("#", "\\043")


def render(plan: EnginePlan, folder: Path, *, seccomp: Path, hook: Path, v2: bool, udev: bool = False) -> str:
    """Return the whole configuration file. *udev*: the guest has the daemon that names devices."""
    lines = [
        f"lxc.log.file = {folder}/lxc.log",
        "lxc.log.level = warn",
        "lxc.console.buffer.size = auto",
        # 128 KiB, then the file becomes console.log.1: guests write what they want, and hosts stay bounded.
        "lxc.console.size = auto",
        "lxc.console.rotate = 1",
        f"lxc.console.logfile = {folder}/console.log",
        f"lxc.mount.auto = {_automatic(plan, udev=udev)}",
        "lxc.autodev = 1",
        "lxc.pty.max = 1024",
        "lxc.tty.max = 0",
        "lxc.arch = linux64",
        f"lxc.uts.name = {value(plan.hostname)}",
        "lxc.apparmor.profile = unconfined",
        f"lxc.seccomp.profile = {seccomp}",
        f"lxc.cap.drop = {_DROPPED}",
        *_id_lines(plan.idmap),
        f"lxc.cgroup.dir.container = podium/{name(plan.id)}",
        f"lxc.cgroup.dir.monitor = podium.monitor/{name(plan.id)}",
        *_init(plan.application),
        f"lxc.rootfs.path = dir:{plan.rootfs}",
        f"lxc.hook.post-stop = {hook}",
        "lxc.hook.version = 1",
    ]
    lines += [f"lxc.hook.start-host = {hook.with_name('start-host')}"] if plan.is_held else []
    lines += [f"lxc.mount.entry = {s} {t} none {o} 0 0" for s, t, o in _ENTRIES]
    if plan.application:
        lines += [
            _mount_line(Mount(str(init_of(plan, folder, hook)), OUR_INIT, read_only=True, is_file=True))
        ]
        lines += _SHARED
    lines += _NESTED if plan.nesting else []
    lines += _device_rules(plan.device_rules, v2=v2)
    lines += [_mount_line(mount) for mount in plan.mounts]
    lines += _nic_lines(plan.nics)
    lines += [f"lxc.environment = {name(k)}={value(v)}" for k, v in sorted(plan.environment.items())]
    lines += [f"lxc.sysctl.{name(k)} = {value(v)}" for k, v in sorted(plan.sysctls.items())]
    lines += [f"lxc.prlimit.{name(k)} = {value(v)}" for k, v in sorted(plan.rlimits.items())]
    prefix = "lxc.cgroup2" if v2 else "lxc.cgroup"
    lines += [f"{prefix}.{name(k)} = {value(v)}" for k, v in plan.limits.items()]
    return "\n".join(lines) + "\n"


def _init(application: Application | None) -> list[str]:
    """Return what init is. Of an application the words are given to the engine as they are, not here."""
    if application is None:
        return ["lxc.init.cmd = /sbin/init"]
    return [
        f"lxc.init.cmd = {OUR_INIT}",
        f"lxc.init.uid = {int(application.uid)}",
        f"lxc.init.gid = {int(application.gid)}",
        f"lxc.init.cwd = {value(application.cwd)}",
        f"{STOP_SIGNAL} = {application.stop_number}",
    ]


def init_of(plan: EnginePlan, folder: Path, hook: Path) -> Path:
    """Return the file that is init of an application; a privileged root could write to it, so has its own."""
    return folder / "init" if plan.idmap.is_privileged else hook.with_name("init")


def command(plan: EnginePlan) -> list[str]:
    """Return what init is started with, where that is not the guest's."""
    if plan.application is None:
        return []
    return ["--", OUR_INIT, "--", *plan.application.command]


def _automatic(plan: EnginePlan, *, udev: bool) -> str:
    """Return which kernel file systems are writable. Nobody but the kernel says no to a privileged root.

    A read-only /sys tells systemd that no udev will come: where none can, networkd must not wait for it.
    """
    if plan.idmap.is_privileged:
        return "proc:mixed sys:mixed cgroup:mixed"
    return f"proc:rw sys:{'rw' if plan.nesting or udev else 'mixed'} cgroup:mixed"


def _id_lines(idmap: IdMap) -> list[str]:
    if idmap.is_privileged:
        return []
    if not idmap.uids or not idmap.gids:
        raise Invalid("NO_IDS", "The instance has no ids of its own; it cannot start")
    kinds = (("u", idmap.uids), ("g", idmap.gids))
    return [f"lxc.idmap = {kind} {r.inside} {r.host} {r.count}" for kind, ranges in kinds for r in ranges]


def _device_rules(more: tuple[str, ...], *, v2: bool) -> list[str]:
    prefix = "lxc.cgroup2" if v2 else "lxc.cgroup"
    return [
        f"{prefix}.devices.deny = a",
        *(f"{prefix}.devices.allow = {value(rule)}" for rule in (*DEVICES, *more)),
    ]


def _mount_line(mount: Mount) -> str:
    options = ["bind", "create=file" if mount.is_file else "create=dir"]
    options += ["ro"] if mount.read_only else []
    options += ["optional"] if mount.optional else []
    if ".." in mount.path.split("/"):
        raise Invalid("BAD_PATH", f"The path {mount.path[:64]!r} must not contain ..", about=mount.path[:64])
    target = _path(mount.path.lstrip("/"))
    return f"lxc.mount.entry = {_path(mount.source)} {target} none {','.join(options)} 0 0"


def _nic_lines(nics: tuple[NicPlan, ...]) -> list[str]:
    if not nics:
        return ["lxc.net.0.type = empty"]
    return [f"lxc.net.{i}.{line}" for i, nic in enumerate(nics) for line in _nic(nic)]


def _nic(nic: NicPlan) -> list[str]:
    lines = [f"name = {name(nic.name)}", "flags = up"]
    if nic.nictype in _ON_PARENT:
        lines[:0] = [f"type = {_ON_PARENT[nic.nictype]}"]
        lines += [f"link = {name(nic.parent)}", *_mode(nic)]
    else:
        lines[:0] = ["type = veth"]
        lines += [f"link = {name(nic.bridge)}"] if nic.bridge else []
        lines += [f"veth.pair = {name(nic.host_name)}"]
    lines += [f"hwaddr = {value(nic.hwaddr)}"] if nic.hwaddr else []
    lines += [f"mtu = {int(nic.mtu)}"] if nic.mtu else []
    if nic.nictype in ("routed", "ipvlan") or nic.is_fixed:
        lines += [f"ipv{4 + 2 * (':' in a)}.address = {value(a)}" for a in nic.addresses]
        lines += [f"{name(v)}.gateway = {value(g)}" for v, g in sorted(nic.gateways.items())]
    return lines


def _mode(nic: NicPlan) -> list[str]:
    if nic.nictype == "macvlan":
        return ["macvlan.mode = bridge"]
    if nic.nictype == "ipvlan":
        return [f"ipvlan.mode = {name(nic.mode)}", "ipvlan.isolation = bridge"] + (
            ["l2proxy = 1"] if nic.mode == "l3s" else []
        )
    return []
