"""The filter of system calls of an instance, in the words of liblxc (version 2). Pure.

One instance without keys of its own shares the file of all; see engine/seccomp.policy.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.configkeys.instance import INSTANCE
from core.configkeys.values import parse_syscalls
from core.units import parse_bool

_KEY = "security.syscalls."
# What breaks out of any container: loading a kernel or a part of it, and opening files past their path.
DANGEROUS = tuple(
    f"{name} errno 38"
    for name in (
        "kexec_load",
        "kexec_file_load",
        "open_by_handle_at",
        "init_module",
        "finit_module",
        "delete_module",
    )
)


def policy(config: Mapping[str, str]) -> str:
    """Return the file for an expanded configuration; "" when it is that of all instances."""
    allow, deny = (parse_syscalls(INSTANCE.get(config, f"{_KEY}{name}")) for name in ("allow", "deny"))
    if allow:
        return _file("allowlist", ["[all]", *allow])
    default = parse_bool(INSTANCE.get(config, f"{_KEY}deny_default"))
    if default and not deny:
        return ""
    lines = ["reject_force_umount"] if default else []
    lines += ["[all]", *(DANGEROUS if default else ()), *(_with_action(line) for line in deny)]
    return _file("denylist", lines)


def names(config: Mapping[str, str]) -> set[str]:
    """Return the system calls that the keys name."""
    found = [*parse_syscalls(INSTANCE.get(config, f"{_KEY}allow"))]
    found += parse_syscalls(INSTANCE.get(config, f"{_KEY}deny"))
    return {line.split()[0] for line in found}


def _with_action(line: str) -> str:
    """A denied call without an action fails with ENOSYS; liblxc would kill the process."""
    return line if " " in line else f"{line} errno 38"


def _file(kind: str, lines: list[str]) -> str:
    return "\n".join(("2", kind, *lines)) + "\n"
