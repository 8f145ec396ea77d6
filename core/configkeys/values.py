"""What values of instance keys may be. Parsers raise ValueError with LXD's sentences where it has them."""

from __future__ import annotations

import re
import shlex
from uuid import UUID

from core.applications import signal_number
from core.configkeys.schema import Parser, lines
from core.errors import Invalid
from core.units import parse_bool, parse_expiry, parse_int

_MODULE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SYSCALL = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_ERRNO = re.compile(r"errno [0-9]{1,4}")
_ACTIONS = frozenset({"kill", "kill_process", "allow", "trap"})
_MOST = 500
# Names that liblxc takes for lxc.prlimit.*, as setrlimit(2) calls them.
_RLIMITS = (
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
)
RLIMITS = frozenset(_RLIMITS.split())
# What is an instance's own: its network, IPC, UTS and user namespace. The rest of /proc/sys is the host's.
_SYSCTL_ROOTS = ("net.", "fs.mqueue.", "user.")
_KERNEL = """
msgmax msgmnb msgmni msg_next_id sem sem_next_id shmall shmmax shmmni shm_next_id shm_rmid_forced auto_msgmni
domainname hostname
"""
_SYSCTLS = frozenset(f"kernel.{name}" for name in _KERNEL.split())


def parse_uint32(text: str) -> int:
    """Return a number of 32 bits; the words of a refusal are those of LXD's language."""
    why = ""
    if not re.fullmatch(r"[0-9]+", text):
        why = "invalid syntax"
    elif len(text) > 10 or int(text) >= 2**32:
        why = "value out of range"
    if why:
        shown = text[:64]
        raise ValueError(f'Invalid value for uint32 "{shown}": strconv.ParseUint: parsing "{shown}": {why}')
    return int(text)


def parse_count(text: str) -> int:
    """Return a number above zero."""
    if (count := parse_int(text)) < 1:
        raise ValueError(f'Invalid value for an integer "{text}". Must be above 0')
    return count


def parse_uuid(text: str) -> str:
    try:
        UUID(text)
    except ValueError:
        raise ValueError("Invalid UUID") from None
    return text


def parse_folder(text: str) -> str:
    """Return the absolute path of a folder inside."""
    if not text.startswith("/") or ".." in text.split("/") or len(text) > 4096:
        raise ValueError(f"Must be an absolute path: {text[:64]!r}")
    return parse_variable(text)


def parse_signal(text: str) -> int:
    return signal_number(text)


def parse_variable(text: str) -> str:
    """Return the value of an environment variable."""
    if any(c in text for c in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"):
        raise ValueError("Environment variables cannot contain line breaks")
    if any(ord(c) < 32 or c == "\x7f" for c in text):
        raise ValueError("Environment variables cannot contain control characters")
    return text


def parse_snapshot_expiry(text: str) -> int:
    """Return seconds; each unit once."""
    units = [part[-1:] for part in text.split(" ")]
    if len(set(units)) != len(units):
        raise ValueError("Invalid expiry expression")
    return parse_expiry(text)


def parse_modules(text: str) -> list[str]:
    """Return kernel modules of "a, b" or "a b"."""
    names = text.replace(",", " ").split()
    if len(names) > _MOST or not all(_MODULE.fullmatch(name) for name in names):
        raise ValueError(f"Invalid kernel module names {text[:64]!r}; use letters, digits, - and _")
    return names


def parse_rlimit(text: str) -> tuple[str, str]:
    """Return the soft and hard limit of "soft:hard", one value for both, or "unlimited"."""
    soft, colon, hard = (part.strip() for part in text.partition(":"))
    hard = hard if colon else soft
    for part in (soft, hard):
        if part != "unlimited" and not re.fullmatch(r"[0-9]{1,18}", part):
            raise ValueError("it must be a number, soft:hard or unlimited")
    if hard != "unlimited" and (soft == "unlimited" or int(soft) > int(hard)):
        raise ValueError("the soft limit must not be above the hard one")
    return soft, hard


def check_rlimit(name: str, text: str) -> None:
    """Check limits.kernel.NAME. Raises: Invalid, in the words in which LXD's engine refuses a value."""
    if name not in RLIMITS:
        known = " ".join(sorted(RLIMITS))
        raise Invalid("UNKNOWN_KEY", f"Unknown configuration key: limits.kernel.{name[:64]} (known: {known})")
    try:
        parse_rlimit(text)
    except ValueError as exc:
        said = f"Initialize LXC: Failed to set LXC config: lxc.prlimit.{name}={text[:64]}"
        raise Invalid("BAD_RLIMIT", f"{said} ({exc})" if ":" in text else said, about=name) from None


def check_sysctl(name: str, text: str) -> None:
    """Check linux.sysctl.NAME. Raises: ValueError.

    A privileged instance has no user namespace to stop it, so a name that is not its own would be
    written on the host.
    """
    dotted = name.replace("/", ".")
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+", dotted) or ".." in name:
        raise ValueError(f"Invalid sysctl name {name[:64]!r}")
    if dotted not in _SYSCTLS and not dotted.startswith(_SYSCTL_ROOTS):
        raise ValueError(f"The sysctl {name!r} belongs to the whole host; only an instance's own can be set")
    if "\n" in text:
        raise ValueError("A sysctl must be one line")


def parse_syscalls(text: str) -> list[str]:
    """Return the lines of a system call list: "NAME [errno N | kill | ...]", without comments.

    Arguments ("[0,1,SCMP_CMP_EQ]") are taken as they are when they hold nothing but such expressions.
    """
    found = []
    for line in text.splitlines():
        line = " ".join(line.split())
        if not line or line.startswith("#"):
            continue
        name, _, action = line.partition(" ")
        if not _SYSCALL.fullmatch(name):
            raise ValueError(f"Invalid system call name {name[:64]!r}")
        if action and not _is_action(action):
            raise ValueError(f"Invalid action {action[:64]!r} for system call {name}; use errno N or kill")
        found.append(line)
    if len(found) > _MOST:
        raise ValueError(f"At most {_MOST} system calls may be listed")
    return found


def _is_action(text: str) -> bool:
    text = re.sub(
        r"( \[[0-9]+(,(0x)?[0-9a-fA-F]+)(,SCMP_CMP_[A-Z_]+)?(,(0x)?[0-9a-fA-F]+)?\])+$", "", f" {text}"
    ).strip()
    return not text or text in _ACTIONS or bool(_ERRNO.fullmatch(text))


def parse_command(text: str) -> list[str]:
    """Return the words of a command as a shell would split them; no shell runs it."""
    words = shlex.split(_one_line(text))
    if not words:
        raise ValueError("it must name a command")
    return words


def parse_program(text: str) -> list[str]:
    """Return the words of a command as a shell would split them; a word may hold line breaks."""
    words = shlex.split(str(lines(text)))
    if not words:
        raise ValueError("it must name a command")
    return words


def parse_port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError(f"{text[:32]!r} is not a port from 1 to 65535")
    return int(text)


def parse_http_target(text: str) -> tuple[int, str]:
    """Return port and path of "8080/healthz"."""
    port, slash, path = text.partition("/")
    if not re.fullmatch(r"[!-~]{0,1024}", path):
        raise ValueError("its path must be of printable characters without blanks")
    return parse_port(port), slash + path or "/"


def parse_seconds(text: str) -> int:
    """Return a number of seconds, of a day at most."""
    if not 0 <= (seconds := parse_int(text)) <= 86400:
        raise ValueError(f"{text} is not between 0 and 86400 seconds")
    return seconds


def parse_some_seconds(text: str) -> int:
    if not (seconds := parse_seconds(text)):
        raise ValueError("it must be above 0 seconds")
    return seconds


def parse_tries(text: str) -> int:
    if not 0 <= (count := parse_int(text)) <= 1_000_000:
        raise ValueError(f"{text} is not a number from 0 on")
    return count


def _one_line(text: str) -> str:
    if any(ord(c) < 32 or c == "\x7f" for c in text):
        raise ValueError("it must not contain line breaks or control characters")
    return text


def off(why: str) -> Parser:
    """Return a parser for a switch that can only be off."""

    def parse(text: str) -> bool:
        if parse_bool(text):
            raise Invalid("KEY_REFUSED", why)
        return False

    return parse
