"""The records this service writes, and the caches it answers from."""

from __future__ import annotations

from core.netrecords import AddressSet, NetworkAcl, NetworkZone
from core.records import (
    Certificate,
    Image,
    Instance,
    Member,
    Network,
    Presence,
    Profile,
    Project,
    ServerConfig,
    Volume,
    Warning,
)
from core.state import codec, keys
from core.state.cache import Cache
from core.state.repository import Repository
from core.state.store import Store


class ClusterStore:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.profiles = Repository(
            store, Profile, lambda r: keys.profile(r.project, r.name), keys.PROFILES, noun="Profile"
        )
        self.projects = Repository(
            store, Project, lambda r: keys.project(r.name), keys.PROJECTS, noun="Project"
        )
        self.certificates = Repository(
            store,
            Certificate,
            lambda r: keys.certificate(r.fingerprint),
            keys.CERTIFICATES,
            noun="Certificate",
        )
        self.server = Repository(
            store, ServerConfig, lambda r: keys.server_config(), keys.SERVER_CONFIG, noun="Server"
        )
        self.warnings = Repository(
            store, Warning, lambda r: keys.warning(r.id), keys.WARNINGS, noun="Warning"
        )
        self.profile_cache = Cache(store, Profile, keys.PROFILES)
        self.project_cache = Cache(store, Project, keys.PROJECTS)
        self.certificate_cache = Cache(store, Certificate, keys.CERTIFICATES)
        self.server_cache = Cache(store, ServerConfig, keys.SERVER_CONFIG)
        self.warning_cache = Cache(store, Warning, keys.WARNINGS)
        self.instances = Cache(store, Instance, keys.INSTANCES)
        self.networks = Cache(store, Network, keys.NETWORKS)
        self.acls = Cache(store, NetworkAcl, keys.NETWORK_ACLS)
        self.address_sets = Cache(store, AddressSet, keys.ADDRESS_SETS)
        self.zones = Cache(store, NetworkZone, keys.NETWORK_ZONES)
        self.volumes = Cache(store, Volume, keys.VOLUMES)
        self.images = Cache(store, Image, keys.IMAGES)
        self.members = Cache(store, Member, keys.MEMBERS)
        self.presence = Cache(store, Presence, keys.PRESENCE)

    def caches(self) -> tuple[Cache[object], ...]:
        found = [c for c in vars(self).values() if isinstance(c, Cache)]
        return tuple(found)

    async def start(self) -> None:
        for cache in self.caches():
            await cache.start()

    async def stop(self) -> None:
        for cache in self.caches():
            await cache.stop()

    async def managed_networks(self) -> dict[str, Network]:
        """Return managed networks by name, with those that were made just now."""
        found = await self.store.list(keys.NETWORKS)
        networks = [codec.decode(Network, kv.value) for kv in found.kvs]
        return {network.name: network for network in networks}

    def instance_records(self) -> list[Instance]:
        return [entry.record for entry in self.instances.entries()]
