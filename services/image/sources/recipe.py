"""What goes into a built image: packages, settings, files, less what is taken out. Pure but for prepare().

One recipe for both ways to build: by root with a chroot, by anybody with fakechroot.
"""

from __future__ import annotations

import hashlib
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from core.errors import Invalid
from core.names import plain_name
from services.image.sources import apt

_RELEASES = {"11": "bullseye", "12": "bookworm", "13": "trixie"}
# udev: where /sys is writable, systemd-networkd waits for it to announce eth0.
_PACKAGES = (
    "systemd-sysv",
    "udev",
    "systemd-resolved",
    "libnss-myhostname",
    "dbus",
    "iproute2",
    "iputils-ping",
    "netbase",
    "procps",
)
_NETWORK = """[Match]
Name=eth0

[Network]
DHCP=ipv4
IPv6AcceptRA=yes

[DHCPv4]
UseDomains=true
"""
# Units that need what a container has not; without them the system comes up as "running".
_MASKED = (
    "systemd-networkd-wait-online.service",
    "systemd-journald-audit.socket",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)
# What must differ between instances; removed before it is written, since under fakechroot nobody is root.
_GENERALISE = (
    'rm -f "$1/etc/machine-id" "$1/etc/hostname" "$1/var/lib/dbus/machine-id"',
    ': >"$1/etc/machine-id"',
    'echo localhost >"$1/etc/hostname"',
    'rm -f "$1/etc/resolv.conf" "$1/etc/.resolv.conf.systemd-resolved.bak"',
    'ln -s ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"',
    'rm -rf "$1/var/cache/apt/archives"',
)
_UNWANTED = ("doc", "man", "locale")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DISTRIBUTIONS = {"debian": "Debian", "ubuntu": "Ubuntu"}
# Variant of mmdebstrap, and what comes with it. Without an init there is nothing to configure.
_VARIANTS = {
    "default": ("minbase", _PACKAGES),
    "minbase": ("minbase", ()),
    "important": ("important", _PACKAGES),
    "standard": ("standard", _PACKAGES),
}


@dataclass(frozen=True)
class RecipeFile:
    """A file of root's. path: within the image, without a slash at its begin."""

    path: str
    content: str
    mode: int = 0o644


@dataclass(frozen=True)
class Recipe:
    """A release by its code name, and packages and files beyond those of every image."""

    release: str
    packages: tuple[str, ...] = ()
    distribution: str = "debian"
    variant: str = "default"
    files: tuple[RecipeFile, ...] = ()

    @property
    def id(self) -> str:
        """A name for all that decides what is built."""
        parts: tuple[object, ...] = (self.release, _PACKAGES, self.packages, _NETWORK, _MASKED)
        parts += (_GENERALISE, platform.machine())
        if (self.distribution, self.variant, self.files) != ("debian", "default", ()):
            parts += (self.distribution, self.variant, self.files)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def prepare(self, work: Path) -> None:
        """Write the files that argv() refers to."""
        (work / "eth0.network").write_text(_NETWORK)
        write_sources(work / "sources.list", self.distribution, self.release)

    def argv(self, work: Path, target: str, *, mode: str) -> list[str]:
        """Return mmdebstrap's command line; *target* is a folder, or - for a tarball on its stdout."""
        variant, included = _VARIANTS[self.variant]
        hooks = [f"copy-in {work}/eth0.network /etc/systemd/network"]
        hooks += ['chroot "$1" systemctl enable systemd-networkd systemd-resolved']
        hooks += [f'chroot "$1" systemctl mask {" ".join(_MASKED)}', *_GENERALISE]
        packages = ",".join((*included, *self.packages))
        argv = ["mmdebstrap", f"--variant={variant}", f"--mode={mode}"]
        argv += [f"--include={packages}"] if packages else []
        hooks = hooks if included else []
        argv += [f"--customize-hook={hook}" for hook in hooks]
        argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNWANTED]
        return [*argv, self.release, target, str(work / "sources.list")]

    def metadata(self, now: float) -> bytes:
        """Return the image's metadata.yaml."""
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        made, name = time.gmtime(now), _DISTRIBUTIONS[self.distribution]
        properties = {
            "os": name,
            "release": self.release,
            "version": next((n for n, r in _RELEASES.items() if r == self.release), self.release),
            "architecture": architecture,
            "variant": self.variant,
            "description": f"{name} {self.release} {architecture} ({time.strftime('%Y%m%d', made)})",
            "serial": time.strftime("%Y%m%d_%H%M", made),
        }
        fields = {"architecture": platform.machine(), "creation_date": int(now), "properties": properties}
        return yaml.safe_dump(fields).encode()


def recipe_of(
    distribution: str,
    release: str,
    packages: tuple[str, ...] = (),
    *,
    variant: str = "default",
    files: tuple[RecipeFile, ...] = (),
) -> Recipe:
    """Return the recipe for a release's number or code name. Raises: Invalid."""
    if distribution not in _DISTRIBUTIONS:
        known = " and ".join(_DISTRIBUTIONS)
        raise Invalid("NO_RECIPE", f"There is no recipe for {distribution[:40]!r}; {known} have one")
    if variant not in _VARIANTS:
        raise Invalid("NO_RECIPE", f"There is no variant {variant[:40]!r}; there are {', '.join(_VARIANTS)}")
    for name in (release, *packages):
        plain_name("release or package", name)
        if name.startswith("-") or not name.isascii() or set(name) & set(" ,?~!()"):
            raise Invalid("BAD_NAME", f"{name[:64]!r} is no release or package", about=name[:64])
    release = _RELEASES.get(release, release) if distribution == "debian" else release
    return Recipe(release, packages, distribution, variant, files)


def write_sources(target: Path, distribution: str, release: str) -> None:
    """Write the mirrors this machine uses, for its own release or this one: no other place names one."""
    host = apt.codename() if apt.distribution() == distribution else release
    lines = apt.source_list(apt.configured_lines(), host, release)
    target.write_text("".join(f"{line}\n" for line in lines))
