"""Make a host ready: packages, user, folders, kernel settings. Everything may be repeated."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from core.settings import USER, Settings
from deploy.command import write_launcher
from deploy.privileges import ROOT, interpreter
from services.runtime.domain.idmaps import FIRST, LAST

# What caps a host, and to what it is raised. 128 inotify instances stop it at about 20 containers.
SYSCTLS = {
    "fs/inotify/max_user_instances": 1048576,
    "fs/inotify/max_user_watches": 1048576,
    "kernel/keys/maxkeys": 2000,
    "kernel/keys/maxbytes": 2000000,
    "net/ipv4/ip_forward": 1,
    "net/ipv4/neigh/default/gc_thresh3": 8192,
}
# Services of Debian's packages that Podium runs itself or does without.
UNITS = ("etcd.service", "lxc-net.service")
_DEVELOPMENT = "matplotlib* numpy* mypy* ruff* pip* hypothesis* fontTools PIL pillow* buf* pytest*"
_CACHES = shutil.ignore_patterns("__pycache__")
_PACKAGES = ("core", "services", "gateway", "protos", "deploy", "cli")
_SHARED = ("run", "etcd", "images", "networks", "forwards", "acl-logs")


def wanted_packages(file: str = "packages.txt") -> list[str]:
    return (ROOT / "deploy" / file).read_text().split()


def ensure_packages(names: Sequence[str] = (), *, units: Sequence[str] = UNITS) -> list[str]:
    """Install what is missing of *names*, keep its *units* from starting, and return what was missing."""
    wanted = names or wanted_packages()
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    have = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    missing = [name for name in wanted if name not in have]
    if missing:
        print(f"==> Installing {' '.join(missing)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _keep_off(units)
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        argv = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(argv, check=True, env=environment, stdout=subprocess.DEVNULL)
    return missing


def _keep_off(units: Sequence[str]) -> None:
    """Debian starts the services of what is installed; mask them where there is a systemd."""
    if shutil.which("systemctl") and Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "mask", *units], capture_output=True, check=False)


def ensure_user(group: str) -> None:
    try:
        grp.getgrnam(group)
    except KeyError:
        subprocess.run(["groupadd", "--system", group], check=True)
    try:
        pwd.getpwnam(USER)
    except KeyError:
        argv = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"]
        subprocess.run([*argv, "--shell", "/usr/sbin/nologin", "--gid", group, USER], check=True)


def ensure_subordinate_ids(folder: Path = Path("/etc")) -> None:
    """Let root map the ranges that instances get; without it newuidmap, where installed, refuses them.

    Source: newuidmap(1), which liblxc prefers to writing the map itself, for root too.
    """
    line = f"root:{FIRST}:{LAST - FIRST}\n"
    for name in ("subuid", "subgid"):
        path = folder / name
        text = path.read_text() if path.exists() else ""
        if line not in text.splitlines(keepends=True):
            path.write_text(text + ("" if text.endswith("\n") or not text else "\n") + line)


def ensure_folders(settings: Settings) -> None:
    """Make the state folder. Sticky: podium's processes may add to it, not replace root's folders."""
    state = settings.state_dir
    state.mkdir(parents=True, exist_ok=True)
    shutil.chown(state, "root", settings.group)
    state.chmod(0o1771)
    _follow_user(settings)
    for name in _SHARED:
        (state / name).mkdir(exist_ok=True)
        _own(state / name, settings.group, 0o700 if name == "etcd" else 0o770)
    (state / "logs").mkdir(mode=0o750, exist_ok=True)
    _ensure_guests(state / "guests")


def _own(folder: Path, group: str, mode: int) -> None:
    """Give *folder* to user podium, whose processes may have put a link to another one in its place.

    Raises: OSError for what is no folder.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, pwd.getpwnam(USER).pw_uid, grp.getgrnam(group).gr_gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _follow_user(settings: Settings) -> None:
    """Give user podium the files of an earlier user of that name: one that was made anew has other ids."""
    state = settings.state_dir
    if not (state / "etcd").is_dir():
        return
    was, uid, gid = (state / "etcd").lstat(), pwd.getpwnam(USER).pw_uid, grp.getgrnam(settings.group).gr_gid
    folders = [str(state / name) for name in (*_SHARED, "tls", "guests") if (state / name).is_dir()]
    moved = [f"--from={was.st_uid}", str(uid)] if was.st_uid not in (0, uid) else []
    if moved or was.st_gid not in (0, gid):
        print(f"==> User {USER} has other ids than it had ({was.st_uid}:{was.st_gid}); its files follow")
    if moved:
        _end_all_of(was.st_uid, state)
    for change in (moved, [f"--from=:{was.st_gid}", f":{gid}"] if was.st_gid not in (0, gid) else []):
        if change:
            # Links are changed themselves and not followed.
            subprocess.run(["chown", "-R", "-h", "-P", *change, *folders], check=True)


def _end_all_of(uid: int, state: Path) -> None:
    """End what an earlier user runs for this member: the new one may not signal it, only take its place."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            told = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
            if process.stat().st_uid == uid and f"{state}".encode() in told:
                os.kill(int(process.name), signal.SIGTERM)


def _ensure_guests(folder: Path) -> None:
    """Make what is mounted into guests a file system of its own: they see nothing of the host's disk."""
    folder.mkdir(exist_ok=True)
    if not folder.is_mount():
        argv = ["mount", "-t", "tmpfs", "-o", "size=16m,nosuid,nodev,noexec", "podium", str(folder)]
        if subprocess.run(argv, capture_output=True, check=False).returncode:
            print(f"warning: {folder} could not be mounted; guests see which disk it lies on")
    folder.chmod(0o711)
    shutil.chown(folder, USER)


def ensure_sysctls() -> None:
    for name, value in SYSCTLS.items():
        path = Path("/proc/sys") / name
        try:
            if int(path.read_text()) < value:
                path.write_text(str(value))
        except (OSError, ValueError):
            print(f"warning: {name.replace('/', '.')} could not be raised to {value}")


def ensure_quick_cgroups(mounts: Path = Path("/proc/self/mounts")) -> None:
    """Let tasks change cgroups without waiting for an RCU period: 6 of 30 ms of a start.

    The option belongs to the v2 hierarchy, its effect to all of them, v1 too; forks of the host get
    a little slower. Source: Documentation/admin-guide/cgroup-v2.rst, "favordynmods"; kernel 6.0.
    """
    for line in mounts.read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2" and "favordynmods" not in options.split(","):
            argv = ["mount", "-o", "remount,favordynmods", target]
            if subprocess.run(argv, capture_output=True, check=False).returncode:
                print(f"warning: {target} does not take favordynmods; containers start slower")


def ensure_readable(settings: Settings) -> None:
    """See to it that user podium can run the services; copy the code when the checkout is private."""
    _compile(ROOT)
    if _can_run(sys.executable, str(ROOT)):
        shutil.rmtree(settings.state_dir / "app", ignore_errors=True)
        return
    app = settings.state_dir / "app"
    copy_app(app)
    python, path = interpreter(settings)
    write_launcher(app, python)
    if not _can_run(python, path):
        raise SystemExit(
            f"User {USER} can run neither {ROOT} nor a copy of it in {app}.\n"
            f"The services run unprivileged and need {python} and its packages.\n"
            "Make the environment with Debian's /usr/bin/python3 and try again."
        )


def _compile(folder: Path) -> None:
    """Leave bytecode beside the code: services that may not write it start slower and larger without."""
    argv = [sys.executable, "-m", "compileall", "-q", *(str(folder / name) for name in _PACKAGES)]
    subprocess.run(argv, capture_output=True, check=False)


def _can_run(python: str, path: str) -> bool:
    argv = ["setpriv", f"--reuid={USER}", "--clear-groups", f"--regid={USER}", "--", python, "-c"]
    code = "import core.errors, grpc, protos.podium.common.v1.common_pb2"
    done = subprocess.run(
        [*argv, code],
        capture_output=True,
        check=False,
        cwd="/",
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"},
    )
    return done.returncode == 0


def copy_app(app: Path) -> None:
    """Make *app* anew: src and site-packages, all that the services need, readable for everyone."""
    new = app.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    copy_source(new / "src")
    _compile(new / "src")
    _copy_packages(Path(sysconfig.get_paths()["purelib"]), new / "site-packages")
    shutil.rmtree(app, ignore_errors=True)
    new.rename(app)
    subprocess.run(["chmod", "-R", "a+rX", str(app)], check=True)


def copy_source(target: Path) -> None:
    """Copy all code of ours that a member runs."""
    for name in _PACKAGES:
        shutil.copytree(ROOT / name, target / name, ignore=_CACHES)


def _copy_packages(folder: Path, target: Path) -> None:
    """Copy installed packages but those for development, which are told by their names in *folder* only."""
    development = shutil.ignore_patterns(*_DEVELOPMENT.split())

    def ignored(path: str, names: list[str]) -> set[str]:
        return development(path, names) if Path(path) == folder else set()

    shutil.copytree(folder, target, ignore=ignored)
