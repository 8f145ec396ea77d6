"""Networks of which nobody changes anything meanwhile."""

from __future__ import annotations

from services.network.store import NetworkStore
from services.network.usecases.networks import Networks


class StillNetworks(Networks):
    """For what only waits for changes of networks; there is no host to make them on."""

    def __init__(self, store: NetworkStore) -> None:
        super().__init__(store, None)  # type: ignore[arg-type]
