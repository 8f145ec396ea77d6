"""First steps of a member: keys and certificates, the default project and profile. Repeatable.

Run as root before the services: `python -m services.cluster.bootstrap`.
"""

from __future__ import annotations

import asyncio
import contextlib

from core.errors import Stale
from core.records import Profile, Project
from core.settings import Settings
from core.state import keys
from core.state.opening import open_store
from core.state.store import Txn
from services.cluster.authority import Authority


async def ensure_defaults(settings: Settings) -> None:
    """Create project and profile "default" unless they exist."""
    store = open_store(settings, "bootstrap")
    features = {"features.images": "true", "features.profiles": "true", "features.storage.volumes": "true"}
    features["features.networks"] = "true"
    project = Project("default", "Default LXD project", features)
    txn = Txn().absent(keys.project("default")).put(keys.project("default"), project)
    profile = keys.profile("default", "default")
    txn.absent(profile).put(profile, Profile("default", "default", "Default LXD profile"))
    with contextlib.suppress(Stale):
        await store.commit(txn)
    await store.close()


def main() -> None:
    settings = Settings.from_env()
    host = settings.rpc_address("cluster").rpartition(":")[0]
    authority = Authority(settings.tls_dir, settings.group)
    authority.ensure(settings.member, host, clustered=settings.cluster is not None)
    asyncio.run(ensure_defaults(settings))


if __name__ == "__main__":
    main()
