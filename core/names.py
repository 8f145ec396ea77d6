"""Checked names. Each function returns the name or raises Invalid with what is wrong and which one.

Rules are those LXD documents, so that every name its clients accept is accepted here.
"""

from __future__ import annotations

import re

from core.errors import Invalid

_INSTANCE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9]|[A-Za-z]")
_INTERFACE = re.compile(r"[-_A-Za-z0-9.]{2,15}")
_DEVICE = re.compile(r"[A-Za-z0-9/._:-]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{1,64}")
_MAX = 255
_DIGITS = 64
_DOTS = (".", "..")
# What the kernel keeps for itself beside the names of interfaces, in /proc/sys/net and elsewhere.
NO_INTERFACES = frozenset({"all", "default", "..", "bonding_masters"})


def shown(name: str) -> str:
    """Return a name of any length as an error may repeat it."""
    return name if len(name) <= 64 else f"{name[:61]}..."


def _no(kind: str, name: str, why: str) -> Invalid:
    return Invalid("BAD_NAME", f"Invalid {kind} name {shown(name)!r}: {why}", about=shown(name))


def instance_name(name: str) -> str:
    if "/" in name:
        raise Invalid("BAD_NAME", 'The character "/" is reserved for snapshots', about=shown(name))
    if not _INSTANCE.fullmatch(name):
        raise Invalid("BAD_NAME", f"Invalid instance name: {_why_no_host(name)}", about=shown(name))
    return name


def _why_no_host(name: str) -> str:
    """Return what is wrong with the name of an instance, in LXD's words."""
    if not 1 <= len(name) <= 63:
        return "Name must be 1-63 characters long"
    if "-" in (name[0], name[-1]):
        return f'Name must not {"start" if name[0] == "-" else "end"} with "-" character'
    if name[0] in "0123456789":
        return "Name must not start with a number"
    return "Name can only contain alphanumeric and hyphen characters"


def network_name(name: str) -> str:
    """It becomes an interface, a file and a word of a command. The words are LXD's."""
    if not name:
        raise Invalid("BAD_NAME", "No name provided")
    if len(name) < 2:
        raise Invalid("BAD_NAME", "Network interface is too short (minimum 2 characters)", about=name)
    if len(name) > 15:
        raise Invalid("BAD_NAME", "Network interface is too long (maximum 15 characters)", about=shown(name))
    if not _INTERFACE.fullmatch(name) or name in NO_INTERFACES or name.startswith("-"):
        raise Invalid("BAD_NAME", "Network interface contains invalid characters", about=shown(name))
    return name


def acl_name(name: str) -> str:
    """The words are LXD's. It stands in rules beside addresses, so it must not look like one."""
    if not name:
        raise Invalid("BAD_NAME", "Name is required")
    if name[0] in "@%#":
        raise Invalid("BAD_NAME", f"Name cannot start with reserved character '{name[0]}'", about=shown(name))
    if not _INSTANCE.fullmatch(name):
        raise Invalid("BAD_NAME", _why_no_host(name), about=shown(name))
    return name


def device_name(name: str) -> str:
    """The sentences are LXD's. Names become parts of names of files, never whole paths."""
    if len(name) > 64:
        raise Invalid("BAD_NAME", "The maximum device name length is 64 characters", about=shown(name))
    if why := _why_no_device(name):
        sentence = f'Device validation failed for "{shown(name)}": {why}'
        raise Invalid("BAD_NAME", sentence, about=shown(name))
    return name


def _why_no_device(name: str) -> str:
    if not 1 <= len(name) <= 63:
        return "Name must be 1-63 characters long"
    if name.startswith("."):
        return "Name must not start with a full stop character"
    if ".." in name.split("/"):
        return "Name must not contain .."
    if not _DEVICE.fullmatch(name):
        return (
            "Name can only contain alphanumeric, forward slash, hyphen, colon, underscore and full stop "
            "characters"
        )
    return ""


def plain_name(kind: str, name: str) -> str:
    """Check a profile, project, pool or volume name: printable, no slash, no dots alone."""
    if not name or len(name) > _MAX or not name.isprintable():
        raise _no(kind, name, f"it must have 1-{_MAX} printable characters")
    if "/" in name or name in (".", ".."):
        raise _no(kind, name, "it must not contain a slash nor be '.' or '..'")
    return name


_NOT_IN_PROJECTS = {"/": "slashes", " ": "spaces", "_": "underscores", "'": "quotes", '"': "quotes"}


def project_name(name: str) -> str:
    """The words are LXD's."""
    if not name:
        raise Invalid("BAD_NAME", "No name provided")
    for character, words in _NOT_IN_PROJECTS.items():
        if character in name:
            raise Invalid("BAD_NAME", f"Project names may not contain {words}", about=shown(name))
    if name == "*":
        raise Invalid("BAD_NAME", "Reserved project name", about=name)
    if name in _DOTS:
        raise Invalid("BAD_NAME", f'Invalid project name "{name}"', about=name)
    return plain_name("project", name)


def profile_name(name: str) -> str:
    """The words are LXD's."""
    if not name:
        raise Invalid("BAD_NAME", "No name provided")
    if "/" in name:
        raise Invalid("BAD_NAME", "Profile names may not contain slashes", about=shown(name))
    if name in _DOTS:
        raise Invalid("BAD_NAME", f'Invalid profile name "{name}"', about=name)
    return plain_name("profile", name)


def pool_name(name: str) -> str:
    if not name:
        raise Invalid("BAD_NAME", "No name provided")
    if "/" in name:
        raise Invalid("BAD_NAME", "Storage pool names may not contain slashes", about=shown(name))
    if any(c.isspace() for c in name):
        raise Invalid("BAD_NAME", "Storage name cannot contain white space", about=shown(name))
    plain_name("storage pool", name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise _no("storage pool", name, "it must have letters, digits, '.', '_' and '-' only")
    return name


def volume_name(name: str) -> str:
    if not name:
        raise Invalid("BAD_NAME", "No name provided")
    if "/" in name:
        raise Invalid("BAD_NAME", "Storage volume names may not contain slashes", about=shown(name))
    return plain_name("storage volume", name)


def volume_snapshot_name(name: str) -> str:
    if "/" in name:
        raise Invalid("BAD_NAME", 'Storage name cannot contain "/"', about=shown(name))
    return plain_name("snapshot", name)


def alias_name(name: str) -> str:
    if not name or len(name) > _MAX or not name.isprintable():
        raise _no("alias", name, f"it must have 1-{_MAX} printable characters")
    return name


def is_fingerprint(text: str) -> bool:
    """Whether *text* may be the beginning of an image's fingerprint."""
    return _FINGERPRINT.fullmatch(text) is not None


def is_whole_fingerprint(text: str) -> bool:
    return len(text) == _DIGITS and is_fingerprint(text)


def in_project(path: str, project: str) -> str:
    """Return *path* as URLs and used_by name what is of *project*: the default one goes without saying."""
    return path if project in ("", "default") else f"{path}?project={project}"
