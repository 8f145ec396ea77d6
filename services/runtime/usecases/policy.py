"""The one door through which the record of an instance is written.

Whatever makes or changes an instance (create, update, copy, move, restore, import, ...) hands the final
record to admit() together with the transaction that will write it. Nobody else decides what is allowed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from core.configkeys.devices.registry import check_instance_devices
from core.configkeys.instance import INSTANCE, check_expanded
from core.errors import Invalid
from core.records import Instance
from core.state import keys
from core.state.store import Txn
from services.runtime.domain import expand
from services.runtime.domain.expand import Expanded
from services.runtime.usecases.host import Host


class Policy:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._store = host.store

    def admit(self, txn: Txn, instance: Instance, *, replaces: Instance | None = None) -> Expanded:
        """Check *instance* as it will be, and let *txn* fail if what was checked changes meanwhile.

        *replaces* is the record whose place it takes: in the sums of its project only one of both counts.
        A Stale commit is to be tried again from here on, since the answer may be another one by then.

        Raises: Invalid, NotFound, Forbidden.
        """
        if len(set(instance.profiles)) != len(instance.profiles):
            raise Invalid("TWICE", "Duplicate profile found in request", about=instance.name)
        expanded = self._host.expanded(instance)
        with _words("Invalid config: " if replaces else "Failed creating instance record: "):
            INSTANCE.check(instance.config)
            check_expanded(expanded.config)
        check_instance_devices(expanded.devices, self._store.network_types())
        expand.root_of(expanded.devices)
        self._host.cgroups.plan(expanded.config)
        self._guard(txn, instance)
        return expanded

    def _guard(self, txn: Txn, instance: Instance) -> None:
        home = self._store.home_of(instance.project, "profiles")
        txn.exists(keys.project(instance.project))
        for profile in instance.profiles:
            txn.exists(keys.profile(home, profile))


@contextlib.contextmanager
def _words(before: str) -> Iterator[None]:
    """Say what was refused as LXD does; what its engine refuses comes without such words."""
    try:
        yield
    except Invalid as exc:
        if exc.reason == "BAD_RLIMIT":
            raise
        raise Invalid(exc.reason, f"{before}{exc.message}", about=exc.about) from None
