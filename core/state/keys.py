"""The key tree in etcd. The only place that formats a key.

    /podium/v1/
      server-config                          ServerConfig
      members/NAME                           Member
      projects/NAME                          Project
      project-guards/NAME                    ProjectGuard: written with what counts against its limits
      profiles/PROJECT/NAME                  Profile
      certificates/FINGERPRINT               Certificate
      warnings/ID                            Warning
      images/PROJECT/FINGERPRINT             Image
      image-copies/FINGERPRINT/MEMBER        ImageCopy: that member has the files
      image-claims/WHAT                      ImageClaim: who brings it from another server
      aliases/PROJECT/NAME                   Alias (NAME percent-encoded)
      pools/NAME                             Pool
      pool-copies/MEMBER/NAME                Pool: what another member than its maker made of it
      volumes/POOL/PROJECT/NAME              Volume
      volume-snapshots/VOLUME_ID/NAME        VolumeSnapshot
      instances/PROJECT/NAME                 Instance
      observed/ID                            InstanceObserved
      previous/INSTANCE_ID                   Previous
      snapshots/INSTANCE_ID/NAME             Snapshot
      backups/INSTANCE_ID/NAME               Backup
      idmaps/MEMBER/BASE                     IdmapBlock
      networks/NAME                          Network
      network-acls/PROJECT/NAME              NetworkAcl
      address-sets/PROJECT/NAME              AddressSet
      network-forwards/NETWORK/ADDRESS       NetworkForward
      load-balancers/NETWORK/ADDRESS         NetworkLoadBalancer
      network-zones/NAME                     NetworkZone
      zone-records/ZONE/NAME                 ZoneRecord
      network-health/NETWORK/MEMBER          NetworkHealth
      tunnel-ends/MEMBER                     TunnelEnd
      vnis/NUMBER                            VniClaim
      nics/INSTANCE_ID/DEVICE                NicReservation
      addresses/NETWORK/ADDRESS              AddressClaim
      operations/ID                          Operation
      operation-events/MEMBER/SERVICE        the outbox; each write is one batch of events
                                             (beside operations: one watch covers both alone)
      claims/MEMBER/SERVICE                  Claim: who runs the operations; each write is a new epoch
      presence/MEMBER/SERVICE                Presence, bound to its lease: it lives, and listens there

Names in keys are percent-encoded, so that a "/" in a name cannot reach another branch.
"""

from __future__ import annotations

import re
from urllib.parse import quote

ROOT = "/podium/v1/"
SERVER_CONFIG = f"{ROOT}server-config"
MEMBERS = f"{ROOT}members/"
PROJECTS = f"{ROOT}projects/"
PROJECT_GUARDS = f"{ROOT}project-guards/"
PROFILES = f"{ROOT}profiles/"
CERTIFICATES = f"{ROOT}certificates/"
WARNINGS = f"{ROOT}warnings/"
IMAGES = f"{ROOT}images/"
IMAGE_COPIES = f"{ROOT}image-copies/"
IMAGE_CLAIMS = f"{ROOT}image-claims/"
ALIASES = f"{ROOT}aliases/"
POOLS = f"{ROOT}pools/"
POOL_COPIES = f"{ROOT}pool-copies/"
VOLUMES = f"{ROOT}volumes/"
VOLUME_SNAPSHOTS = f"{ROOT}volume-snapshots/"
INSTANCES = f"{ROOT}instances/"
OBSERVED = f"{ROOT}observed/"
PREVIOUS = f"{ROOT}previous/"
SNAPSHOTS = f"{ROOT}snapshots/"
BACKUPS = f"{ROOT}backups/"
IDMAPS = f"{ROOT}idmaps/"
NETWORKS = f"{ROOT}networks/"
NETWORK_ACLS = f"{ROOT}network-acls/"
ADDRESS_SETS = f"{ROOT}address-sets/"
NETWORK_FORWARDS = f"{ROOT}network-forwards/"
LOAD_BALANCERS = f"{ROOT}load-balancers/"
NETWORK_ZONES = f"{ROOT}network-zones/"
ZONE_RECORDS = f"{ROOT}zone-records/"
NETWORK_HEALTH = f"{ROOT}network-health/"
TUNNEL_ENDS = f"{ROOT}tunnel-ends/"
VNIS = f"{ROOT}vnis/"
NICS = f"{ROOT}nics/"
ADDRESSES = f"{ROOT}addresses/"
OPERATIONS = f"{ROOT}operations/"
EVENTS = f"{ROOT}operation-events/"
CLAIMS = f"{ROOT}claims/"
PRESENCE = f"{ROOT}presence/"

# What quote() leaves as it is, as nearly every part of a key: looking is twenty times as fast.
_is_plain = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch


def _join(prefix: str, *parts: str) -> str:
    return prefix + "/".join([part if _is_plain(part) else quote(part, safe="") for part in parts])


def server_config() -> str:
    return SERVER_CONFIG


def member(name: str) -> str:
    return _join(MEMBERS, name)


def project(name: str) -> str:
    return _join(PROJECTS, name)


def project_guard(name: str) -> str:
    return _join(PROJECT_GUARDS, name)


def profile(project: str, name: str) -> str:
    return _join(PROFILES, project, name)


def profiles(project: str) -> str:
    return _join(PROFILES, project) + "/"


def certificate(fingerprint: str) -> str:
    return _join(CERTIFICATES, fingerprint)


def warning(id: str) -> str:
    return _join(WARNINGS, id)


def image(project: str, fingerprint: str) -> str:
    return _join(IMAGES, project, fingerprint)


def images(project: str) -> str:
    return _join(IMAGES, project) + "/"


def image_copy(fingerprint: str, member: str) -> str:
    return _join(IMAGE_COPIES, fingerprint, member)


def image_copies(fingerprint: str) -> str:
    return _join(IMAGE_COPIES, fingerprint) + "/"


def image_claim(what: str) -> str:
    return _join(IMAGE_CLAIMS, what)


def alias(project: str, name: str) -> str:
    return _join(ALIASES, project, name)


def aliases(project: str) -> str:
    return _join(ALIASES, project) + "/"


def pool(name: str) -> str:
    return _join(POOLS, name)


def pool_copy(member: str, name: str) -> str:
    return _join(POOL_COPIES, member, name)


def pool_copies(member: str) -> str:
    return _join(POOL_COPIES, member) + "/"


def volume(pool: str, project: str, name: str) -> str:
    return _join(VOLUMES, pool, project, name)


def volumes(pool: str, project: str = "") -> str:
    """Prefix of the custom volumes of a pool, or of one project in it."""
    return (_join(VOLUMES, pool, project) if project else _join(VOLUMES, pool)) + "/"


def volume_snapshot(volume_id: str, name: str) -> str:
    return _join(VOLUME_SNAPSHOTS, volume_id, name)


def volume_snapshots(volume_id: str) -> str:
    return _join(VOLUME_SNAPSHOTS, volume_id) + "/"


def instance(project: str, name: str) -> str:
    return _join(INSTANCES, project, name)


def instances(project: str = "") -> str:
    """Prefix of the instances of one project, or of all."""
    return _join(INSTANCES, project) + "/" if project else INSTANCES


def observed(id: str) -> str:
    return _join(OBSERVED, id)


def previous(instance_id: str) -> str:
    return _join(PREVIOUS, instance_id)


def snapshot(instance_id: str, name: str) -> str:
    return _join(SNAPSHOTS, instance_id, name)


def snapshots(instance_id: str) -> str:
    return _join(SNAPSHOTS, instance_id) + "/"


def backup(instance_id: str, name: str) -> str:
    return _join(BACKUPS, instance_id, name)


def backups(instance_id: str) -> str:
    return _join(BACKUPS, instance_id) + "/"


def idmap(member: str, base: int) -> str:
    return _join(IDMAPS, member, f"{base:010d}")


def network(name: str) -> str:
    return _join(NETWORKS, name)


def nic(instance_id: str, device: str) -> str:
    return _join(NICS, instance_id, device)


def network_acl(project: str, name: str) -> str:
    return _join(NETWORK_ACLS, project, name)


def network_acls(project: str) -> str:
    return _join(NETWORK_ACLS, project) + "/"


def address_set(project: str, name: str) -> str:
    return _join(ADDRESS_SETS, project, name)


def address_sets(project: str) -> str:
    return _join(ADDRESS_SETS, project) + "/"


def network_forward(network: str, address: str) -> str:
    return _join(NETWORK_FORWARDS, network, address)


def network_forwards(network: str) -> str:
    return _join(NETWORK_FORWARDS, network) + "/"


def load_balancer(network: str, address: str) -> str:
    return _join(LOAD_BALANCERS, network, address)


def load_balancers(network: str) -> str:
    return _join(LOAD_BALANCERS, network) + "/"


def network_zone(name: str) -> str:
    return _join(NETWORK_ZONES, name)


def zone_record(zone: str, name: str) -> str:
    return _join(ZONE_RECORDS, zone, name)


def zone_records(zone: str) -> str:
    return _join(ZONE_RECORDS, zone) + "/"


def network_health(network: str, member: str) -> str:
    return _join(NETWORK_HEALTH, network, member)


def network_healths(network: str) -> str:
    return _join(NETWORK_HEALTH, network) + "/"


def tunnel_end(member: str) -> str:
    return _join(TUNNEL_ENDS, member)


def vni(number: int) -> str:
    return _join(VNIS, f"{number:08d}")


def nics(instance_id: str) -> str:
    return _join(NICS, instance_id) + "/"


def address(network: str, address: str) -> str:
    return _join(ADDRESSES, network, address)


def addresses(network: str) -> str:
    return _join(ADDRESSES, network) + "/"


def operation(id: str) -> str:
    return _join(OPERATIONS, id)


def events(member: str, service: str) -> str:
    return _join(EVENTS, member, service)


def claim(member: str, service: str) -> str:
    return _join(CLAIMS, member, service)


def presence(member: str, service: str) -> str:
    return _join(PRESENCE, member, service)


def presences(member: str) -> str:
    return _join(PRESENCE, member) + "/"
