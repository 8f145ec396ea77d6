"""Architectures by the names that kernels, distributions and clients have for them."""

from __future__ import annotations

import platform

from core.errors import Invalid

ARCHITECTURES = {
    "amd64": "x86_64",
    "x86-64": "x86_64",
    "generic_64": "x86_64",
    "arm": "armv6l",
    "armel": "armv6l",
    "armhfp": "armv7l",
    "armv7": "armv7l",
    "armv7a_hardfp": "armv7l",
    "arm64_generic": "aarch64",
    "ppc64": "ppc64",
    "powerpc": "ppc",
    "powerpc64": "ppc64",
    "ppc": "ppc",
    "s390": "s390x",
    "i586": "i686",
    "x86": "i686",
    "generic_32": "i686",
    "386": "i686",
    "loongarch64": "loongarch64",
    "mips": "mips",
    "mipsel": "mips",
    "mipsle": "mips",
    "mips64": "mips64",
    "mips64el": "mips64",
    "mips64le": "mips64",
    "x86_64": "x86_64",
    "arm64": "aarch64",
    "aarch64": "aarch64",
    "i386": "i686",
    "i686": "i686",
    "armhf": "armv7l",
    "armv7l": "armv7l",
    "armv6l": "armv6l",
    "armv8l": "armv8l",
    "ppc64el": "ppc64le",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "riscv32": "riscv32",
}
"""Every name that is taken, to the kernel's."""


def known(asked: str) -> str:
    """Return the kernel's name of the architecture that goes by *asked*; "" for "". Raises: Invalid."""
    name = ARCHITECTURES.get(asked, "")
    if asked and not name:
        raise Invalid("BAD_ARCHITECTURE", f"Architecture isn't supported: {asked[:64]}", about=asked[:64])
    return name


def of_host() -> tuple[str, ...]:
    """Return what this host runs, its own first."""
    machine = platform.machine()
    return (machine, "i686") if machine == "x86_64" else (machine,)
