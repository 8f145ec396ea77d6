"""The one table of verbs: what each is called, which words and flags it takes, and what carries it out.

The parser, the help and the completion are read from it. Importing it imports no verb.
"""

from __future__ import annotations

from cli.arguments import Flag, Verb
from cli.volumeverbs import VOLUMES

GROUPS = {
    "": "System containers behind LXD's API",
    "config": "Manage instance and server configuration",
    "config device": "Manage devices of instances",
    "config metadata": "Manage image metadata of instances",
    "config template": "Manage templates of instances",
    "config trust": "Manage trusted clients",
    "file": "Manage files in instances",
    "image": "Manage images",
    "image alias": "Manage image aliases",
    "network": "Manage networks",
    "network load-balancer": "Manage load balancers of networks",
    "network load-balancer backend": "Manage their backends",
    "network load-balancer port": "Manage their ports",
    "network address-set": "Manage addresses that ACLs name together",
    "storage": "Manage storage pools",
    "storage volume": "Manage storage volumes",
    "profile": "Manage profiles",
    "profile device": "Manage devices of profiles",
    "project": "Manage projects",
    "remote": "Manage registries and servers that images come from",
    "operation": "List, show and cancel background operations",
    "warning": "Manage warnings",
    "cluster": "Run Podium on more hosts than one",
    "admin": "Look after Podium itself",
    "admin etcd": "Look after the state store",
}

_FORMAT = Flag("format", "f", "FORMAT", "table, compact, csv, json or yaml")
_ALL = Flag("all", "", "", "Apply to all instances")
_FORCE = Flag("force", "f", "", "Do not wait for a clean shutdown")
_TIMEOUT = Flag("timeout", "", "SECONDS", "Time to wait for the shutdown (default -1: as long as it takes)")
_CONSOLE = Flag("console", "", "TYPE", "Attach to the console at once", bare="console")
_TARGET = Flag("target", "", "MEMBER", "Member of the cluster to create it on")
_TOLD = Flag("target", "", "MEMBER", "Accepted; every member answers for all")
_MEMBER = Flag("name", "", "NAME", "Name of the member")
_ADDRESS = Flag("address", "", "HOST[:PORT]", "Where other members reach this one; else PODIUM_RPC")
_VM = Flag("vm", "", "", "Accepted; images are of containers")
_RESOURCES = Flag("resources", "", "", "Show the resources that there are")
_EXPANDED = Flag("expanded", "e", "", "With what profiles add")
_PARENTS = Flag("create-dirs", "p", "", "Create the folders that are missing")
_RECURSIVE = Flag("recursive", "r", "", "Take folders with all that is in them")
_COLUMNS = Flag("columns", "c", "COLUMNS", "Columns to show, by letter or name")

_CREATE = (
    Flag("config", "c", "KEY=VALUE", "Configuration of the new instance; may be repeated"),
    Flag("device", "d", "DEVICE,KEY=VALUE", "Device key of the new instance; may be repeated"),
    Flag("empty", "", "", "Create it without an image"),
    Flag("ephemeral", "e", "", "Delete it when it stops"),
    Flag("network", "n", "NETWORK", "Network to connect it to"),
    Flag("no-profiles", "", "", "Apply no profile"),
    Flag("profile", "p", "PROFILE", "Profile to apply; may be repeated"),
    Flag("storage", "s", "POOL", "Pool for its root"),
    Flag("type", "t", "TYPE", "Instance type"),
    Flag("vm", "", "", "Ask for a virtual machine (Podium has none)"),
    _TARGET,
)
_POOL = Flag("storage", "s", "POOL", "Pool to put it in")
_PROJECT = Flag("target-project", "", "PROJECT", "Project to put it in")
_ONLY = Flag("instance-only", "", "", "Without its snapshots")
_IGNORED = (
    Flag("mode", "", "MODE", "Accepted; copies are made on this server"),
    Flag("stateless", "", "", "Accepted; copies have no state"),
    Flag("allow-inconsistent", "", "", "Accepted; copies are consistent"),
    _TOLD,
)
_MOVE = (_POOL, _PROJECT, _ONLY, *_IGNORED)
_COPY = (
    Flag("config", "c", "KEY=VALUE", "Configuration of the copy; may be repeated"),
    Flag("device", "d", "DEVICE,KEY=VALUE", "Device key of the copy; may be repeated"),
    Flag("ephemeral", "e", "", "Delete the copy when it stops"),
    Flag("no-profiles", "", "", "Apply no profile"),
    Flag("profile", "p", "PROFILE", "Profile to apply; may be repeated"),
    Flag("refresh", "", "", "Bring a copy that is there up to date"),
    *_MOVE,
)
_COMPRESSION = Flag("compression", "", "NAME", "none, gzip, zstd, xz, bzip2 or lz4, with -LEVEL if you like")
_PUBLISH = (
    Flag("alias", "", "ALIAS", "Alias of the image; may be repeated"),
    Flag("expire", "", "TIME", "When the image goes, as 2030-01-31T12:00:00Z"),
    Flag("force", "f", "", "Stop it first, and start it after"),
    Flag("public", "", "", "Let anybody use it"),
    _COMPRESSION,
)
_EXEC = (
    Flag("cwd", "", "FOLDER", "Folder to run it in (default: the user's home)"),
    Flag("disable-stdin", "n", "", "Give it no input"),
    Flag("env", "", "NAME=VALUE", "Environment variable; may be repeated"),
    Flag("force-interactive", "t", "", "Use a terminal whatever this is run from"),
    Flag("force-noninteractive", "T", "", "Use no terminal"),
    Flag("group", "", "GID", "Group to run it as"),
    Flag("mode", "", "MODE", "auto, interactive or non-interactive"),
    Flag("user", "", "UID", "User to run it as"),
)
_PUSH = (
    Flag("uid", "", "UID", "Owner of the file"),
    Flag("gid", "", "GID", "Group of the file"),
    Flag("mode", "", "MODE", "Permissions of the file, such as 0644"),
    _PARENTS,
    _RECURSIVE,
)
_LIST_HELP = """Filters: the start of a name, a regular expression on it, or KEY=VALUE where KEY is type, status,
architecture, location, ipv4, ipv6 or a configuration key (each part may be shortened: u.role=web).

Columns: 4 ipv4, 6 ipv6, a architecture, b pool, c created, d description, D disk, e project, f image,
F fingerprint, l used, L location, m memory, M memory%, n name, N processes, p pid, P profiles, s state,
S snapshots, t type, u cpu; by letter (-c ns4) or by name (-c name,state,ipv4), and
[config:|devices:]KEY[:TITLE[:WIDTH]] for keys."""

_INSTANCES = (
    Verb("launch", "creation:launch", "IMAGE [NAME]", "Create and start an instance from an image", (*_CREATE, _CONSOLE)),
    Verb("init", "creation:init", "[IMAGE] [NAME]", "Create an instance from an image", _CREATE),
    Verb("start", "states:start", "[INSTANCE...]", "Start instances", (_ALL, _CONSOLE, Flag("stateless", "", "", "Ignore stored state"))),
    Verb("stop", "states:stop", "[INSTANCE...]", "Stop instances", (_ALL, _FORCE, _TIMEOUT, _CONSOLE, Flag("stateful", "", "", "Store the state"))),
    Verb("restart", "states:restart", "[INSTANCE...]", "Restart instances", (_ALL, _FORCE, _TIMEOUT, _CONSOLE)),
    Verb("pause", "states:pause", "[INSTANCE...]", "Pause instances", (_ALL,)),
    Verb("delete", "states:delete", "INSTANCE...", "Delete instances and snapshots", (Flag("force", "f", "", "Stop running ones first"), Flag("interactive", "i", "", "Ask before each")), ("rm",)),
    Verb("snapshot", "copying:snapshot", "INSTANCE [SNAPSHOT]", "Take a snapshot of an instance", (Flag("no-expiry", "", "", "Keep it whatever snapshots.expiry says"), Flag("reuse", "", "", "Replace a snapshot of that name"), Flag("stateful", "", "", "With the state of its processes"))),
    Verb("restore", "copying:restore", "INSTANCE SNAPSHOT", "Make an instance what it was at a snapshot", (Flag("stateful", "", "", "With the state of its processes"),)),
    Verb("copy", "copying:copy", "INSTANCE [NAME]", "Copy an instance, or INSTANCE/SNAPSHOT", _COPY, ("cp",)),
    Verb("rename", "copying:rename", "INSTANCE NAME", "Rename an instance, or INSTANCE/SNAPSHOT"),
    Verb("move", "copying:move", "INSTANCE [NAME]", "Rename an instance, or move it to another pool or project", _MOVE, ("mv",)),
    Verb("rebuild", "copying:rebuild", "[IMAGE] INSTANCE", "Give an instance an empty root over an image", (Flag("empty", "", "", "Over no image"), Flag("force", "f", "", "Stop it first, and start it after"))),
    Verb("publish", "backups:publish", "INSTANCE [KEY=VALUE...]", "Make an image of an instance, or of INSTANCE/SNAPSHOT", _PUBLISH),
    Verb("export", "backups:export_instance", "INSTANCE [FILE]", "Write an instance to a file", (_ONLY, Flag("optimized-storage", "", "", "Accepted; archives are of one form"), _COMPRESSION)),
    Verb("import", "backups:import_instance", "FILE [NAME]", "Make an instance of such a file", (_POOL,)),
    Verb("list", "listing:instances", "[FILTER...]", "List instances", (_COLUMNS, _FORMAT, Flag("fast", "", "", "Show only what needs no look inside (-c nsacPt)"), Flag("all-projects", "", "", "Of all projects"), Flag("watch", "w", "", "Go on showing them as they change")), ("ls",), _LIST_HELP),
    Verb("explain", "explain:explain", "INSTANCE", "Say what an instance does, and where each of its values comes from", (Flag("all", "a", "", "Also keys that Podium sets"),)),
    Verb("undo", "undo:undo", "INSTANCE", "Take back the last change of an instance's configuration or name", (Flag("dry-run", "", "", "Only show what would change"),)),
    Verb("diff", "difference:diff", "INSTANCE [FILE]", "Show how an instance differs from its profiles, or from a file", (Flag("profile", "", "PROFILE", "From this profile"), Flag("snapshot", "", "SNAPSHOT", "From this snapshot"), Flag("previous", "", "", "From what it was before its last change"))),
    Verb("logs", "logs:show", "INSTANCE", "Show what an instance printed on its console", (Flag("follow", "f", "", "Go on as more comes"), Flag("lines", "n", "COUNT", "Only the last lines"), Flag("engine", "", "", "The engine's log instead"))),
    Verb("doctor", "doctor:doctor", "", "Find what keeps instances and networks from working", (Flag("fix", "", "", "Run the commands that help"),)),
    Verb("top", "top:watch", "[FILTER...]", "Show what running instances use, once a second", (Flag("sort", "s", "ORDER", "cpu, memory, name, processes, received or sent"), Flag("delay", "d", "SECONDS", "Seconds between looks"), Flag("count", "n", "COUNT", "Looks to take (default: until ctrl-c)"), Flag("all-projects", "", "", "Of all projects"))),
    Verb("info", "details:info", "[INSTANCE]", "Show an instance, or the server", (_RESOURCES, Flag("show-log", "", "", "With the end of the instance's log"), _TOLD)),
    Verb("exec", "execution:run", "INSTANCE COMMAND...", "Run a command in an instance", _EXEC, (), "Put -- before a command that has flags: podium exec web -- ls -l"),
    Verb("shell", "execution:shell", "INSTANCE", "Open a root shell in an instance", _EXEC),
    Verb("console", "console:attach", "INSTANCE", "Attach to the console (leave with ctrl-a q)", (Flag("show-log", "", "", "Show what it has printed so far"), Flag("type", "t", "TYPE", "console"))),
    Verb("file push", "files:push", "FILE... INSTANCE/PATH", "Copy files into an instance", _PUSH),
    Verb("file pull", "files:pull", "INSTANCE/PATH... FILE", "Copy files out of an instance", (_PARENTS, _RECURSIVE)),
    Verb("file mount", "mounting:mount", "INSTANCE/PATH FOLDER", "Mount a folder of an instance on this machine"),
    Verb("file delete", "files:delete", "INSTANCE/PATH...", "Delete files in an instance", (), ("rm",)),
    Verb("file edit", "files:edit", "INSTANCE/PATH", "Edit a file of an instance"),
)  # fmt: skip

_CONFIG = (
    Verb("config get", "config:get", "[INSTANCE] KEY", "Print a key of an instance or the server", (_EXPANDED, _TOLD)),
    Verb("config set", "config:set", "[INSTANCE] KEY=VALUE...", "Set keys of an instance or the server", (_TOLD,)),
    Verb("config unset", "config:unset", "[INSTANCE] KEY", "Unset a key of an instance or the server", (_TOLD,)),
    Verb("config show", "config:show", "[INSTANCE]", "Show an instance's or the server's configuration", (_EXPANDED, _TOLD)),
    Verb("config edit", "config:edit", "[INSTANCE]", "Edit a configuration as YAML", (_TOLD,)),
    Verb("config metadata show", "templates:show_metadata", "INSTANCE", "Show an instance's metadata"),
    Verb("config metadata edit", "templates:edit_metadata", "INSTANCE", "Edit an instance's metadata as YAML"),
    Verb("config template list", "templates:listing", "INSTANCE", "List templates", (_FORMAT,), ("ls",)),
    Verb("config template show", "templates:show", "INSTANCE TEMPLATE", "Print a template"),
    Verb("config template create", "templates:create", "INSTANCE TEMPLATE", "Make an empty template"),
    Verb("config template edit", "templates:change", "INSTANCE TEMPLATE", "Edit a template"),
    Verb("config template delete", "templates:delete", "INSTANCE TEMPLATE", "Delete a template", (), ("rm",)),
    Verb("config trust list", "trust:listing", "", "List trusted clients", (_FORMAT,), ("ls",)),
    Verb("config trust add", "trust:add", "[FILE]", "Trust a certificate, or make a token for a client", (Flag("name", "", "NAME", "Name of the client"), Flag("projects", "", "PROJECT", "Projects it is restricted to"), Flag("restricted", "", "", "Restrict it to projects"), Flag("type", "", "TYPE", "client or metrics"))),
    Verb("config trust show", "trust:show", "FINGERPRINT", "Show a trusted client"),
    Verb("config trust edit", "trust:edit", "FINGERPRINT", "Edit a trusted client as YAML"),
    Verb("config trust remove", "trust:remove", "FINGERPRINT", "Trust a client no more", (), ("rm",)),
    Verb("config trust list-tokens", "trust:tokens", "", "List tokens that were not used yet", (_FORMAT,)),
    Verb("config trust revoke-token", "trust:revoke", "NAME", "Make a token useless"),
)  # fmt: skip


def _devices(group: str, kind: str) -> tuple[Verb, ...]:
    return (
        Verb(f"{group} add", "devices:add", f"{kind} DEVICE TYPE [KEY=VALUE...]", "Add a device"),
        Verb(f"{group} remove", "devices:remove", f"{kind} DEVICE...", "Remove devices", (), ("rm",)),
        Verb(f"{group} list", "devices:listing", kind, "List devices", (), ("ls",)),
        Verb(f"{group} show", "devices:show", kind, "Show all devices"),
        Verb(f"{group} get", "devices:get", f"{kind} DEVICE KEY", "Print a key of a device"),
        Verb(f"{group} set", "devices:set", f"{kind} DEVICE KEY=VALUE...", "Set keys of a device"),
        Verb(f"{group} unset", "devices:unset", f"{kind} DEVICE KEY", "Unset a key of a device"),
    )


_IMAGES = (
    Verb("image list", "images:listing", "[FILTER...]", "List images", (_COLUMNS, _FORMAT), ("ls",)),
    Verb("image info", "images:info", "IMAGE", "Show what is known of an image", (_VM,)),
    Verb("image show", "images:show", "IMAGE", "Show an image's properties as YAML", (_VM,)),
    Verb("image edit", "images:edit", "IMAGE", "Edit an image's properties as YAML"),
    Verb("image get-property", "images:get_property", "IMAGE KEY", "Print a property"),
    Verb("image set-property", "images:set_property", "IMAGE KEY VALUE", "Set a property"),
    Verb("image unset-property", "images:unset_property", "IMAGE KEY", "Unset a property"),
    Verb("image import", "transfers:import_image", "FILE [FILE] [KEY=VALUE...]", "Import an image, unified or split", (Flag("alias", "", "ALIAS", "Alias of the image; may be repeated"), Flag("public", "", "", "Let anybody use it"))),
    Verb("image import-rootfs", "rootfs:import_rootfs", "PATH [KEY=VALUE...]", "Import a plain root file system, a folder or a tarball", (Flag("alias", "", "ALIAS", "Alias of the image; may be repeated"), Flag("architecture", "", "NAME", "What it runs on (default: this machine's)"), Flag("public", "", "", "Let anybody use it"))),
    Verb("image copy", "remotes:copy", "REMOTE:IMAGE [local:]", "Bring an image of a remote here", (Flag("alias", "", "ALIAS", "Alias of the image; may be repeated"), Flag("auto-update", "", "", "Bring what its name stands for later"), Flag("public", "", "", "Let anybody use it")), ("cp",)),
    Verb("image export", "transfers:export_image", "IMAGE [TARGET]", "Write an image to files", (_VM,)),
    Verb("image delete", "images:delete", "IMAGE...", "Delete images", (), ("rm",)),
    Verb("image refresh", "images:refresh", "IMAGE...", "Bring images up to date with the servers they came from"),
    Verb("image build", "building:build", "RECIPE|DISTRIBUTION [RELEASE]", "Build an image from this machine's package mirror, by a recipe (YAML) or by names", (Flag("alias", "", "ALIAS", "Alias of the image (default DISTRIBUTION/RELEASE, or the recipe's name)"), Flag("log", "", "FILE", "Write there what the build of a recipe said"), Flag("force", "", "", "Build a recipe also when it was built before"), Flag("package", "", "PACKAGE", "One more package; may be repeated"))),
    Verb("image alias list", "aliases:listing", "[FILTER...]", "List aliases", (_FORMAT,), ("ls",)),
    Verb("image alias create", "aliases:create", "ALIAS FINGERPRINT", "Give an image one more name"),
    Verb("image alias delete", "aliases:delete", "ALIAS", "Delete an alias", (), ("rm",)),
    Verb("image alias rename", "aliases:rename", "ALIAS NAME", "Rename an alias", (), ("mv",)),
)  # fmt: skip


def _objects(group: str, kind: str, noun: str) -> tuple[Verb, ...]:
    """What networks, pools, profiles and projects have in common."""
    return (
        Verb(f"{group} list", "objects:listing", "", f"List {noun}s", (_FORMAT,), ("ls",)),
        Verb(f"{group} show", "objects:show", kind, f"Show a {noun} as YAML", (_RESOURCES, _TOLD)),
        Verb(f"{group} get", "objects:get", f"{kind} KEY", f"Print a key of a {noun}", (_TOLD,)),
        Verb(f"{group} set", "objects:set", f"{kind} KEY=VALUE...", f"Set keys of a {noun}", (_TOLD,)),
        Verb(f"{group} unset", "objects:unset", f"{kind} KEY", f"Unset a key of a {noun}", (_TOLD,)),
        Verb(f"{group} edit", "objects:edit", kind, f"Edit a {noun} as YAML"),
        Verb(f"{group} delete", "objects:delete", kind, f"Delete a {noun}", (), ("rm",)),
    )


_CONFIG_FLAG = Flag("config", "c", "KEY=VALUE", "Configuration of the new project; may be repeated")
_OBJECTS = (
    *_objects("network", "NETWORK", "network"),
    Verb("network create", "objects:create", "NETWORK [KEY=VALUE...]", "Create a network", (Flag("type", "t", "TYPE", "Network type"), _TOLD)),
    Verb("network rename", "objects:rename", "NETWORK NAME", "Rename a network", (), ("mv",)),
    Verb("network attach", "networks:attach", "NETWORK INSTANCE [DEVICE] [NIC]", "Add a NIC on a network to an instance"),
    Verb("network detach", "networks:detach", "NETWORK INSTANCE [DEVICE]", "Take a NIC from an instance"),
    Verb("network info", "networks:info", "NETWORK", "Show what a network is doing", (_TOLD,)),
    Verb("network map", "networkmap:draw", "", "Draw networks and who is on them", (Flag("svg", "", "", "As a picture instead of text"),)),
    Verb("network load-balancer list", "balancers:listing", "NETWORK", "List load balancers", (_FORMAT,), ("ls",)),
    Verb("network load-balancer show", "balancers:show", "NETWORK ADDRESS", "Show a load balancer as YAML"),
    Verb("network load-balancer info", "balancers:info", "NETWORK ADDRESS", "Show which backends answer"),
    Verb("network load-balancer create", "balancers:create", "NETWORK ADDRESS [KEY=VALUE...]", "Create a load balancer"),
    Verb("network load-balancer set", "balancers:set_keys", "NETWORK ADDRESS KEY=VALUE...", "Set keys of a load balancer"),
    Verb("network load-balancer delete", "balancers:delete", "NETWORK ADDRESS", "Delete a load balancer", (), ("rm",)),
    Verb("network load-balancer backend add", "balancers:add_backend", "NETWORK ADDRESS BACKEND TARGET [PORT]", "Add a backend"),
    Verb("network load-balancer backend remove", "balancers:remove_backend", "NETWORK ADDRESS BACKEND", "Remove a backend"),
    Verb("network load-balancer port add", "balancers:add_port", "NETWORK ADDRESS PROTOCOL PORTS BACKEND,...", "Let ports lead to backends"),
    Verb("network load-balancer port remove", "balancers:remove_port", "NETWORK ADDRESS PROTOCOL PORTS", "Remove a port"),
    Verb("network address-set list", "balancers:list_sets", "", "List address sets", (_FORMAT,), ("ls",)),
    Verb("network address-set show", "balancers:show_set", "SET", "Show an address set as YAML"),
    Verb("network address-set create", "balancers:create_set", "SET [ADDRESS...]", "Create an address set"),
    Verb("network address-set add", "balancers:add_addresses", "SET ADDRESS...", "Add addresses"),
    Verb("network address-set remove", "balancers:remove_addresses", "SET ADDRESS...", "Remove addresses"),
    Verb("network address-set delete", "balancers:delete_set", "SET", "Delete an address set", (), ("rm",)),
    Verb("network list-leases", "networks:leases", "NETWORK", "List addresses that were given out", (_FORMAT,)),
    *_objects("storage", "POOL", "storage pool"),
    Verb("storage create", "objects:create_pool", "POOL DRIVER [KEY=VALUE...]", "Create a storage pool", (_TOLD,)),
    Verb("storage info", "storage:info", "POOL", "Show what a pool holds and has left", (Flag("bytes", "", "", "In bytes"), _TOLD)),
    *_objects("profile", "PROFILE", "profile"),
    Verb("profile create", "objects:create", "PROFILE", "Create a profile"),
    Verb("profile rename", "objects:rename", "PROFILE NAME", "Rename a profile", (), ("mv",)),
    Verb("profile copy", "profiles:copy", "PROFILE NAME", "Copy a profile", (Flag("target-project", "", "PROJECT", "Project of the copy"),), ("cp",)),
    Verb("profile add", "profiles:add", "INSTANCE PROFILE", "Add a profile to an instance"),
    Verb("profile remove", "profiles:remove", "INSTANCE PROFILE", "Take a profile from an instance"),
    Verb("profile assign", "profiles:assign", "INSTANCE PROFILES", "Give an instance exactly these profiles", (), ("apply",)),
    *_devices("profile device", "PROFILE"),
    *_objects("project", "PROJECT", "project"),
    Verb("project create", "objects:create", "PROJECT", "Create a project", (_CONFIG_FLAG,)),
    Verb("project rename", "objects:rename", "PROJECT NAME", "Rename a project", (), ("mv",)),
    Verb("project switch", "projects:switch", "PROJECT", "Make a project the current one"),
    Verb("project info", "projects:info", "PROJECT", "Show limits and what is used", (_FORMAT,)),
)  # fmt: skip

_SERVER = (
    Verb("remote add", "remotes:add", "NAME URL", "Name a registry or server of images", (Flag("protocol", "", "PROTOCOL", "oci, simplestreams or lxd"), Flag("public", "", "", "Accepted; only images are taken from remotes"))),
    Verb("remote list", "remotes:listing", "", "List remotes", (_FORMAT,), ("ls",)),
    Verb("remote remove", "remotes:remove", "NAME...", "Forget remotes", (), ("rm",)),
    Verb("operation list", "operations:listing", "", "List background operations", (_FORMAT,), ("ls",)),
    Verb("operation show", "operations:show", "OPERATION", "Show an operation"),
    Verb("operation delete", "operations:delete", "OPERATION", "Cancel an operation", (), ("cancel", "rm")),
    Verb("warning list", "alerts:listing", "", "List warnings", (Flag("all", "a", "", "Also acknowledged and resolved ones"), _COLUMNS, _FORMAT), ("ls",)),
    Verb("warning show", "alerts:show", "WARNING", "Show a warning"),
    Verb("warning acknowledge", "alerts:acknowledge", "WARNING", "Mark a warning as seen", (), ("ack",)),
    Verb("warning delete", "alerts:delete", "[WARNING]", "Delete a warning", (Flag("all", "a", "", "Delete all"),), ("rm",)),
    Verb("monitor", "monitor:follow", "", "Show events as they happen", (Flag("type", "", "TYPE", "lifecycle, operation or logging; may be repeated"), Flag("pretty", "", "", "One line an event"), Flag("format", "f", "FORMAT", "yaml, json or pretty"), Flag("loglevel", "", "LEVEL", "Least level of log events"), Flag("since", "", "CURSOR", "Go on after this event"), Flag("all-projects", "", "", "Of all projects"))),
    Verb("query", "query:send", "PATH", "Send a request as it is", (Flag("request", "X", "METHOD", "GET, POST, PUT, PATCH or DELETE"), Flag("data", "d", "JSON", "Body"), Flag("wait", "", "", "Wait for the operation"), Flag("raw", "", "", "Print the whole answer"))),
    Verb("version", "details:version", "", "Show the versions of client and server"),
    Verb("completion", "completion:script", "SHELL", "Print what makes a shell complete podium's words"),
    Verb("up", "member:up", "", "Set this machine up and start Podium"),
    Verb("down", "member:down", "", "Stop the services; containers keep running"),
    Verb("purge", "member:purge", "", "Remove every trace of Podium"),
    Verb("cluster enable", "cluster:enable", "[NAME]", "Let other hosts join this one", (_ADDRESS,)),
    Verb("cluster add", "cluster:add", "[NAME]", "Print a token with which one host can join", (_MEMBER,)),
    Verb("cluster join", "cluster:join", "TOKEN", "Join the cluster that made a token", (_ADDRESS,)),
    Verb("cluster list", "cluster:listing", "", "List the members", (_FORMAT,), ("ls",)),
    Verb("admin client-cert", "client_cert:write", "NAME [FOLDER]", "Let a program call the services by gRPC"),
    Verb("admin shutdown", "shutdown:shutdown", "", "Stop all instances as before a reboot, then Podium"),
    Verb("admin recover", "recovery:recover", "[POOL [DRIVER [KEY=VALUE...]]]", "Record again what lies in pools", (Flag("dry-run", "", "", "Only say what is found"),)),
    Verb("admin etcd members", "etcd:members", "", "Show who takes part"),
    Verb("admin etcd status", "etcd:status", "", "Show version, size and leader"),
    Verb("admin etcd defrag", "etcd:defrag", "", "Give freed space back"),
    Verb("admin etcd compact", "etcd:compact", "REVISION", "Drop history before a revision"),
    Verb("admin etcd snapshot", "etcd:snapshot", "FILE", "Save everything to a file"),
    Verb("admin etcd check", "etcd:check", "FILE", "Prove that a snapshot is whole and can be restored"),
)  # fmt: skip

_OVERRIDE = Verb(
    "config device override",
    "devices:override",
    "INSTANCE DEVICE [KEY=VALUE...]",
    "Give an instance its own copy of a profile's device",
)
VERBS = (
    *_INSTANCES,
    *_CONFIG,
    *_devices("config device", "INSTANCE"),
    _OVERRIDE,
    *_IMAGES,
    *_OBJECTS,
    *VOLUMES,
    *_SERVER,
)
