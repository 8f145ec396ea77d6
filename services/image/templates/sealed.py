"""Let this process read and write what it has open, and nothing else, from here on: seccomp(2)."""

from __future__ import annotations

import ctypes
import platform
import resource
import struct

_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
# read write mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn mremap madvise exit futex
# clock_gettime exit_group getrandom: what an interpreter needs to compute. Source: the kernel's tables.
_CALLS = {
    "x86_64": (0xC000003E, (0, 1, 9, 10, 11, 12, 13, 14, 15, 25, 28, 60, 202, 228, 231, 318)),
    "aarch64": (0xC00000B7, (63, 64, 222, 226, 215, 214, 134, 135, 139, 216, 233, 93, 98, 113, 94, 278)),
}


class _Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def limit(*, memory: int, cpu_s: int) -> None:
    """Bound what this process may take. It can open nothing any more."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def seal() -> None:
    """Kill this process at the first other call. Raises: OSError. No effect on machines not listed."""
    if platform.machine() not in _CALLS:
        return
    architecture, calls = _CALLS[platform.machine()]
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, true=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        *(_step(_EQUAL, call, true=len(calls) - at) for at, call in enumerate(calls)),
        _step(_RETURN, _KILL),
        _step(_RETURN, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


def _step(code: int, value: int, *, true: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, 0, value)
