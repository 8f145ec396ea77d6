"""What goes into a Debian image: packages, settings, and what is taken out again. Pure but for prepare().

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


@dataclass(frozen=True)
class Recipe:
    """A release by its code name, and packages beyond those of every image."""

    release: str
    packages: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """A name for all that decides what is built."""
        parts = (self.release, _PACKAGES, self.packages, _NETWORK, _MASKED, _GENERALISE, platform.machine())
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def prepare(self, work: Path) -> None:
        """Write the files that argv() refers to."""
        (work / "eth0.network").write_text(_NETWORK)
        write_sources(work / "sources.list", self.release)

    def argv(self, work: Path, target: str, *, mode: str) -> list[str]:
        """Return mmdebstrap's command line; *target* is a folder, or - for a tarball on its stdout."""
        hooks = [f"copy-in {work}/eth0.network /etc/systemd/network"]
        hooks += ['chroot "$1" systemctl enable systemd-networkd systemd-resolved']
        hooks += [f'chroot "$1" systemctl mask {" ".join(_MASKED)}', *_GENERALISE]
        packages = ",".join((*_PACKAGES, *self.packages))
        argv = ["mmdebstrap", "--variant=minbase", f"--mode={mode}", f"--include={packages}"]
        argv += [f"--customize-hook={hook}" for hook in hooks]
        argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNWANTED]
        return [*argv, self.release, target, str(work / "sources.list")]

    def metadata(self, now: float) -> bytes:
        """Return the image's metadata.yaml."""
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        made = time.gmtime(now)
        properties = {
            "os": "Debian",
            "release": self.release,
            "version": next((n for n, r in _RELEASES.items() if r == self.release), self.release),
            "architecture": architecture,
            "variant": "default",
            "description": f"Debian {self.release} {architecture} ({time.strftime('%Y%m%d', made)})",
            "serial": time.strftime("%Y%m%d_%H%M", made),
        }
        fields = {"architecture": platform.machine(), "creation_date": int(now), "properties": properties}
        return yaml.safe_dump(fields).encode()


def recipe_of(distribution: str, release: str, packages: tuple[str, ...] = ()) -> Recipe:
    """Return the recipe for "debian" and a release's number or code name. Raises: Invalid."""
    if distribution != "debian":
        raise Invalid("NO_RECIPE", f"There is no recipe for {distribution[:40]!r}; debian has one")
    for name in (release, *packages):
        plain_name("release or package", name)
        if name.startswith("-") or not name.isascii() or set(name) & set(" ,?~!()"):
            raise Invalid("BAD_NAME", f"{name[:64]!r} is no release or package", about=name[:64])
    return Recipe(_RELEASES.get(release, release), packages)


def write_sources(target: Path, release: str) -> None:
    """Write the mirrors this machine uses for its own release: the only place where one is named."""
    lines = apt.source_list(apt.configured_lines(), apt.codename(), release)
    target.write_text("".join(f"{line}\n" for line in lines))
