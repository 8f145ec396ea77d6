"""What the kernel of this host knows: system calls, by libseccomp, and modules."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_LIBRARY = "libseccomp.so.2"
_UNKNOWN = -1


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY)
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    return library


class HostKernel:
    """Implements ports.Kernel."""

    def unknown_syscalls(self, names: Iterable[str]) -> list[str]:
        wanted = sorted(names)  # the library is loaded only by who asks for something
        return [name for name in wanted if _library().seccomp_syscall_resolve_name(name.encode()) == _UNKNOWN]

    def missing_modules(self, names: Iterable[str]) -> list[str]:
        wanted = [name.replace("-", "_") for name in names]
        return [name for name in wanted if not Path("/sys/module", name).exists() and name not in _built_in()]


@cache
def _built_in() -> frozenset[str]:
    """Return the modules that are part of the kernel; those without parameters are not in /sys/module."""
    try:
        lines = Path("/lib/modules", os.uname().release, "modules.builtin").read_text().split()
    except OSError:
        return frozenset()
    return frozenset(Path(line).name.partition(".ko")[0].replace("-", "_") for line in lines)
