"""The records that services share through etcd. Each has one writer, named in its docstring.

Frozen; change with `dataclasses.replace`. Times are unix seconds (0.0 means never). Every field has
a default, so that a record written by an older version still loads; a shape that changes meaning
raises `schema` and needs a migration. Fields of a newer version survive a rewrite (see repository.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

Config = dict[str, str]
Devices = dict[str, dict[str, str]]
# Statuses of a pool or network that is being made or deleted; found at a start, it is taken back.
PASSING = ("Pending", "Deleting")
# Types of networks that are a bridge on the host, alone or joined to those of other members.
BRIDGES = ("bridge", "overlay")


@dataclass(frozen=True)
class Instance:
    """Specification of an instance. Writer: runtime."""

    id: str = ""
    project: str = ""
    name: str = ""
    description: str = ""
    architecture: str = ""
    ephemeral: bool = False
    profiles: tuple[str, ...] = ()
    config: Config = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    created_at: float = 0.0
    member: str = ""
    idmap_base: int = 0
    idmap_size: int = 65536
    idmap_raw: str = ""
    pool: str = ""
    image: str = ""
    base_dir: str = ""
    """Folder of the squashfs of `image` that is the root; empty where the image itself says it.
    Set where it came by import or migration: then `image` is no image, but what came."""
    base_shift: int = 0
    """What is added to each id below base_dir; other managers shift ids on their disks."""
    schema: int = 1


@dataclass(frozen=True)
class InstanceObserved:
    """What an instance is doing. Writer: runtime. `operation` holds the id of the one that owns it."""

    id: str = ""
    project: str = ""
    name: str = ""
    status: str = "creating"
    message: str = ""
    pid: int = 0
    last_used_at: float = 0.0
    operation: str = ""
    ended: str = ""
    """How it ended last: asked, clean, failed or unhealthy; see services/runtime/domain/revival.py."""
    ended_at: float = 0.0
    restarts: int = 0
    """How often it was started again in a row."""
    health: str = ""
    """starting, healthy or unhealthy; empty without a check."""
    cloud_init: str = ""
    """Digest of what cloud-init inside works by; another one means another instance to it."""
    volatile: Config = field(default_factory=dict)
    schema: int = 1


@dataclass(frozen=True)
class Previous:
    """What an instance was before its last change, and who changed it when. Writer: runtime."""

    instance: Instance = Instance()
    changed_at: float = 0.0
    changed_by: str = ""
    schema: int = 1


@dataclass(frozen=True)
class Snapshot:
    """An instance as it was at created_at. Writer: runtime. status: Pending, Created or Deleting.

    id names its volume in the pool of *instance*, which is the specification that a restore puts back.
    """

    id: str = ""
    instance_id: str = ""
    name: str = ""
    instance: Instance = Instance()
    volatile: Config = field(default_factory=dict)
    created_at: float = 0.0
    expires_at: float = 0.0
    last_used_at: float = 0.0
    stateful: bool = False
    scheduled_for: float = 0.0
    """The minute of snapshots.schedule that it was taken for; 0.0 where somebody asked for it."""
    status: str = "Pending"
    schema: int = 1


@dataclass(frozen=True)
class Backup:
    """An archive of an instance in <state>/backups/ID. Writer: runtime. status: Pending, Created or Deleting.

    compression: as it was asked for; size: bytes of the archive.
    """

    id: str = ""
    instance_id: str = ""
    name: str = ""
    created_at: float = 0.0
    expires_at: float = 0.0
    instance_only: bool = False
    compression: str = ""
    size: int = 0
    status: str = "Pending"
    schema: int = 1


@dataclass(frozen=True)
class IdmapBlock:
    """A claimed range of host ids. Writer: runtime."""

    base: int = 0
    instance_id: str = ""


@dataclass(frozen=True)
class Profile:
    """Writer: cluster."""

    project: str = ""
    name: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    schema: int = 1


@dataclass(frozen=True)
class Project:
    """Writer: cluster. renamed_by: the operation that gave it its name, "" when none did."""

    name: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    renamed_by: str = ""
    schema: int = 1


@dataclass(frozen=True)
class ProjectGuard:
    """Written with all that counts against the limits of a project. Writer: runtime of *member*."""

    project: str = ""
    member: str = ""


@dataclass(frozen=True)
class Pool:
    """A storage pool. Writer: runtime. status: Pending, Created, Errored or Deleting."""

    name: str = ""
    driver: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    status: str = "Created"
    error: str = ""
    member: str = ""
    schema: int = 1


@dataclass(frozen=True)
class Volume:
    """A custom volume. Writer: runtime. status: Pending, Created or Deleting.

    id names its folder in the pool, so that a rename moves nothing. project is the one that it lives in
    (see features.storage.volumes). operation: the one that owns it; "" when it is free.
    """

    id: str = ""
    pool: str = ""
    project: str = ""
    name: str = ""
    description: str = ""
    content_type: str = "filesystem"
    config: Config = field(default_factory=dict)
    created_at: float = 0.0
    status: str = "Created"
    operation: str = ""
    schema: int = 1


@dataclass(frozen=True)
class VolumeSnapshot:
    """A custom volume as it was. Writer: runtime. id names its folder; see Volume for the rest."""

    id: str = ""
    volume_id: str = ""
    name: str = ""
    description: str = ""
    config: Config = field(default_factory=dict)
    created_at: float = 0.0
    expires_at: float = 0.0
    status: str = "Created"
    schema: int = 1


@dataclass(frozen=True)
class Network:
    """Writer: network, of any member. status: Pending, Created or Deleting; errors are each member's own.

    member: who makes or deletes it, while it is Pending or Deleting.
    """

    name: str = ""
    project: str = "default"
    type: str = "bridge"
    description: str = ""
    config: Config = field(default_factory=dict)
    status: str = "Created"
    error: str = ""
    member: str = ""
    schema: int = 1

    @property
    def has_bridge(self) -> bool:
        """Whether it is a bridge of ours on each member, with what belongs to one."""
        return self.type in BRIDGES


@dataclass(frozen=True)
class NicReservation:
    """A NIC as decided. Writer: network. Addresses are without prefix; empty means none."""

    instance_id: str = ""
    project: str = ""
    instance_name: str = ""
    network: str = ""
    device: str = ""
    name: str = ""
    host_name: str = ""
    hwaddr: str = ""
    mtu: int = 1500
    bridge: str = ""
    ipv4: str = ""
    ipv4_prefix: int = 0
    ipv6: str = ""
    ipv6_prefix: int = 0
    nictype: str = "bridged"
    is_static: bool = False
    at_rest: bool = False
    """Its instance does not run, and addresses that are not its own by configuration are left out."""
    parent: str = ""
    """Interface of the host that it hangs on, if that is no bridge. An mtu of 0 is the one it has."""
    vlan: int = 0
    host_side: bool = False
    """Something on the host is more than its interfaces: made by plug, taken back by unplug."""
    taken: Config = field(default_factory=dict)
    """Of an interface that a running instance was given: index, hwaddr and mtu as they are given back."""
    options: Config = field(default_factory=dict)
    member: str = ""
    """Where its instance lives; empty in records of times when there was one member only."""
    schema: int = 1


@dataclass(frozen=True)
class AddressClaim:
    """An address that is taken on a network. Writer: network. Created only if absent.

    Without an instance it is that of member *device*, by which the member speaks to guests on others.
    """

    network: str = ""
    address: str = ""
    instance_id: str = ""
    device: str = ""


@dataclass(frozen=True)
class Image:
    """Writer: image. metadata is metadata.yaml as parsed.

    origin: server, protocol, alias and certificate of the server it came from; empty for an upload.
    """

    project: str = ""
    fingerprint: str = ""
    properties: Config = field(default_factory=dict)
    public: bool = False
    auto_update: bool = False
    cached: bool = False
    architecture: str = ""
    filename: str = ""
    size_bytes: int = 0
    split: bool = False
    profiles: tuple[str, ...] = ("default",)
    created_at: float = 0.0
    expires_at: float = 0.0
    last_used_at: float = 0.0
    uploaded_at: float = 0.0
    metadata: dict[str, object] = field(default_factory=dict)
    origin: Config = field(default_factory=dict)
    schema: int = 1


@dataclass(frozen=True)
class ImageCopy:
    """A member that has the files of an image or of a base. Writer: image of that member."""

    fingerprint: str = ""
    member: str = ""
    kept_at: float = 0.0
    schema: int = 1


@dataclass(frozen=True)
class ImageClaim:
    """Who brings an image from another server; the others wait. Writer: image, created only if absent.

    operation: the one that brings it, on *member*.
    """

    member: str = ""
    operation: str = ""


@dataclass(frozen=True)
class Alias:
    """A name for an image. Writer: image."""

    project: str = ""
    name: str = ""
    description: str = ""
    target: str = ""
    schema: int = 1


@dataclass(frozen=True)
class Certificate:
    """A trusted certificate. Writer: cluster. type: client, metrics or server; certificate is PEM."""

    fingerprint: str = ""
    name: str = ""
    type: str = "client"
    restricted: bool = False
    projects: tuple[str, ...] = ()
    certificate: str = ""
    schema: int = 1


@dataclass(frozen=True)
class ServerConfig:
    """Server-wide keys that differ from their default. Writer: cluster. Secrets are hashed."""

    config: Config = field(default_factory=dict)
    schema: int = 1


@dataclass(frozen=True)
class Member:
    """One host. Writer: cluster.

    address: host:port of its REST API. Of members of a cluster: rpc as in PODIUM_RPC; etcd: host:port where
    its etcd answers others, "" where it runs none; votes: whether that one has a vote.
    """

    name: str = ""
    address: str = ""
    architecture: str = ""
    rpc: str = ""
    etcd: str = ""
    votes: bool = False
    joined_at: float = 0.0
    schema: int = 1


@dataclass(frozen=True)
class Claim:
    """Which process runs the operations of a service of a member. Writer: that process, once.

    lock names the file lock it holds (host, boot and file), holder the process: two starts of the
    same service differ.
    """

    holder: str = ""
    lock: str = ""
    pid: int = 0
    host: str = ""
    since: float = 0.0


@dataclass(frozen=True)
class Presence:
    """A service that lives. address: host:port where it speaks mTLS, "" where it does not."""

    member: str = ""
    service: str = ""
    holder: str = ""
    address: str = ""


@dataclass(frozen=True)
class Warning:
    """Something an operator should look at. Writer: cluster, at the word of the service that saw it."""

    id: str = ""
    type: str = ""
    severity: str = "low"
    status: str = "new"
    member: str = ""
    project: str = ""
    subject: str = ""
    message: str = ""
    count: int = 1
    first_seen_at: float = 0.0
    last_seen_at: float = 0.0
    schema: int = 1
