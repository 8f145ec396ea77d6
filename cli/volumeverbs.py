"""The verbs of `podium storage volume`. A part of the table in verbs.py."""

from cli.arguments import Flag, Verb

_FORMAT = Flag("format", "f", "FORMAT", "table, compact, csv, json or yaml")
_TARGET = Flag("target", "", "MEMBER", "Accepted; there is one member")
_PROJECT = Flag("target-project", "", "PROJECT", "Project of the copy")
_ONLY = Flag("volume-only", "", "", "Without snapshots")
_OF = "POOL VOLUME"

VOLUMES = (
    Verb("storage volume list", "volumes:listing", "POOL [FILTER...]", "List storage volumes", (_FORMAT, Flag("all-projects", "", "", "Of all projects")), ("ls",)),
    Verb("storage volume show", "volumes:show", _OF, "Show a volume or snapshot as YAML", (_TARGET,)),
    Verb("storage volume info", "volumes:info", _OF, "Show what a volume uses", (_TARGET,)),
    Verb("storage volume create", "volumes:create", "POOL VOLUME [KEY=VALUE...]", "Create a custom volume", (Flag("type", "", "TYPE", "Content type: filesystem"), _TARGET)),
    Verb("storage volume delete", "volumes:delete", _OF, "Delete a volume or snapshot", (_TARGET,), ("rm",)),
    Verb("storage volume get", "volumes:get", "POOL VOLUME KEY", "Print a key of a volume", (_TARGET,)),
    Verb("storage volume set", "volumes:set", "POOL VOLUME KEY=VALUE...", "Set keys of a volume", (_TARGET,)),
    Verb("storage volume unset", "volumes:unset", "POOL VOLUME KEY", "Unset a key of a volume", (_TARGET,)),
    Verb("storage volume edit", "volumes:edit", _OF, "Edit a volume or snapshot as YAML", (_TARGET,)),
    Verb("storage volume rename", "volumes:rename", "POOL VOLUME NAME", "Rename a volume or snapshot", (_TARGET,), ("mv",)),
    Verb("storage volume snapshot", "volumes:snapshot", "POOL VOLUME [SNAPSHOT]", "Take a snapshot of a volume", (Flag("no-expiry", "", "", "Keep it for ever"), Flag("reuse", "", "", "Replace a snapshot of that name"), _TARGET)),
    Verb("storage volume restore", "volumes:restore", "POOL VOLUME SNAPSHOT", "Go back to a snapshot", (_TARGET,)),
    Verb("storage volume copy", "volumes:copy", "POOL/VOLUME POOL/VOLUME", "Copy a volume or snapshot", (_PROJECT, _ONLY, Flag("refresh", "", "", "Over what is there already"), _TARGET), ("cp",)),
    Verb("storage volume move", "volumes:move", "POOL/VOLUME POOL/VOLUME", "Move a volume", (_PROJECT, _TARGET)),
    Verb("storage volume attach", "volumes:attach", "POOL VOLUME INSTANCE [DEVICE] [PATH]", "Show a volume inside an instance"),
    Verb("storage volume detach", "volumes:detach", "POOL VOLUME INSTANCE [DEVICE]", "Take a volume from an instance"),
    Verb("storage volume attach-profile", "volumes:attach_profile", "POOL VOLUME PROFILE [DEVICE] [PATH]", "Give a profile a volume"),
    Verb("storage volume detach-profile", "volumes:detach_profile", "POOL VOLUME PROFILE [DEVICE]", "Take a volume from a profile"),
    Verb("storage volume export", "volumes:export", "POOL VOLUME [FILE]", "Write a volume to a file", (Flag("compression", "", "ALGORITHM", "gzip, zstd, xz ... or none"), _ONLY, Flag("optimized-storage", "", "", "Accepted; any pool can read the file"), _TARGET)),
    Verb("storage volume import", "volumes:take_in", "POOL FILE [VOLUME]", "Make a volume of a file", (_TARGET,)),
)  # fmt: skip
