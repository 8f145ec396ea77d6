"""What the operator chose for images: keys of the project, else those of the server, else the default."""

from __future__ import annotations

from core.configkeys.others import SERVER
from core.mirrors import parse_mirrors
from core.records import Project, ServerConfig
from core.state import keys
from core.state.cache import Cache
from core.state.store import Store
from core.units import parse_bool

_HOUR_S, _DAY_S = 3600.0, 86400.0


class Choices:
    """Follows the records. start() before use."""

    def __init__(self, store: Store) -> None:
        self._server = Cache(store, ServerConfig, keys.SERVER_CONFIG)
        self._projects = Cache(store, Project, keys.PROJECTS)

    async def start(self) -> None:
        await self._server.start()
        await self._projects.start()

    async def stop(self) -> None:
        await self._server.stop()
        await self._projects.stop()

    def set_value(self, project: str, key: str) -> str:
        """Return what was set for images of *project*; "" where nothing was."""
        entry, server = self._projects.get(keys.project(project)), self._server.get(keys.server_config())
        own = entry.record.config.get(key, "") if entry else ""
        return own or (server.record.config.get(key, "") if server else "")

    def update_every_s(self, project: str) -> float:
        """Return how often images are refreshed; 0.0 for never."""
        return max(0, self._number(project, "images.auto_update_interval")) * _HOUR_S

    def unused_for_s(self, project: str) -> float:
        """Return for how long cached images are kept that nobody uses; 0.0 for ever."""
        return max(0, self._number(project, "images.remote_cache_expiry")) * _DAY_S

    def updates_cached(self, project: str) -> bool:
        key = "images.auto_update_cached"
        return parse_bool(self.set_value(project, key) or SERVER.get({}, key))

    def architecture(self, project: str) -> str:
        """Return whose images are meant by names; "" for this host's."""
        return self.set_value(project, "images.default_architecture")

    def compression(self, project: str) -> str:
        """Return how images of instances are compressed; "" for the fastest way."""
        return self.set_value(project, "images.compression_algorithm")

    @property
    def is_offline(self) -> bool:
        """Whether no other server may be asked for images."""
        return parse_bool(self._of_server("images.offline") or "false")

    def mirrors_of(self, server: str) -> tuple[str, ...]:
        """Return what is asked before *server*, an address without a slash at its end."""
        return parse_mirrors(self._of_server("images.mirrors")).get(server, ())

    def _of_server(self, key: str) -> str:
        entry = self._server.get(keys.server_config())
        return entry.record.config.get(key, "") if entry else ""

    def _number(self, project: str, key: str) -> int:
        text = self.set_value(project, key) or SERVER.get({}, key)
        return int(text) if text.lstrip("-").isdigit() else int(SERVER.get({}, key))
