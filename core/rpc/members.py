"""Find a service of another member and call it: each says in the state where it listens."""

from __future__ import annotations

import grpc

from core.errors import Unavailable
from core.records import Presence
from core.rpc.client import member_channel
from core.settings import Settings
from core.state import codec, keys
from core.state.store import Store


async def dial(store: Store, settings: Settings, *, member: str, service: str) -> grpc.aio.Channel:
    """Return a channel to *service* of *member*. Raises: Unavailable when it is not there."""
    kv = await store.get(keys.presence(member, service))
    address = codec.decode(Presence, kv.value).address if kv else ""
    if not address:
        raise Unavailable(
            "SERVICE_UNAVAILABLE", f"The {service} service of member {member!r} does not answer", about=member
        )
    return member_channel(settings, service, member=member, address=address)
