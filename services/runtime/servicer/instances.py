"""The gRPC face of instances: convert, call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from core import architectures
from core.configkeys.devices.registry import without_empty
from core.errors import Invalid, WrongState
from core.operations.operation import Operation
from core.operations.servicer import answer
from core.records import Instance, InstanceObserved
from core.state import keys
from core.state.repository import Entry
from protos.podium.common.v1 import common_pb2
from protos.podium.runtime.v1 import instance_pb2 as pb
from protos.podium.runtime.v1 import instance_pb2_grpc as rpc
from services.runtime.domain.criu import not_live
from services.runtime.ports import PoolSpace
from services.runtime.servicer import convert, metrics
from services.runtime.usecases.claims import Claims
from services.runtime.usecases.host import Host
from services.runtime.usecases.instances.change import Changes, Update
from services.runtime.usecases.instances.create import Create, Source, Wanted
from services.runtime.usecases.instances.follow import Follow
from services.runtime.usecases.running import figures
from services.runtime.usecases.running.power import Power

_ACTIONS = {
    pb.STATE_ACTION_START: "start",
    pb.STATE_ACTION_STOP: "stop",
    pb.STATE_ACTION_RESTART: "restart",
    pb.STATE_ACTION_FREEZE: "freeze",
    pb.STATE_ACTION_UNFREEZE: "unfreeze",
}

# What every kernel has that runs Podium, and the API extensions of liblxc 5.0, as LXD names them.
_KERNEL = (
    *("idmapped_mounts", "netnsid_getifaddrs", "seccomp_listener", "seccomp_listener_continue"),
    *("uevent_injection", "unpriv_fscaps"),
)
_ENGINE = (
    *("cgroup2", "core_scheduling", "devpts_fd", "idmapped_mounts_v2", "mount_injection_file"),
    *("network_gateway_device_route", "network_ipvlan", "network_l2proxy", "network_phys_macvlan_mtu"),
    *("network_veth_router", "pidfd", "seccomp_allow_deny_syntax", "seccomp_notify"),
    "seccomp_proxy_send_notify_fd",
)


class InstanceServicer(rpc.InstanceServiceServicer):
    def __init__(
        self,
        host: Host,
        create: Create,
        power: Power,
        changes: Changes,
        follow: Follow,
        claims: Claims,
    ) -> None:
        self._host = host
        self._claims = claims
        self._follow = follow
        self._create = create
        self._power = power
        self._changes = changes
        self._runner = claims.runner

    def _answer(self, operation: Operation) -> common_pb2.Operation:
        return answer(self._runner, operation)

    async def CreateInstance(
        self, request: pb.CreateInstanceRequest, context: Any
    ) -> pb.CreateInstanceResponse:
        wanted = wanted_of(request)
        return pb.CreateInstanceResponse(operation=self._answer(await self._create.accept(wanted)))

    async def GetInstance(self, request: pb.GetInstanceRequest, context: Any) -> pb.GetInstanceResponse:
        self._host.store.home_of(request.project, "profiles")
        await self._claims.caught_up(request.project, request.name)
        entry = self._host.store.instance(request.project, request.name)
        message = self._shown(entry.record, entry.revision)
        if request.view == pb.INSTANCE_VIEW_FULL:
            await self._add_state([message], [entry.record])
        return pb.GetInstanceResponse(instance=message)

    async def ListInstances(self, request: pb.ListInstancesRequest, context: Any) -> pb.ListInstancesResponse:
        await self._claims.all_caught_up()
        store = self._host.store
        prefix = keys.instances("" if request.all_projects else request.project)
        entries, next_place = _page(store.instances.entries(prefix), request.after, request.limit)
        revision = store.instances.revision
        if request.view == pb.INSTANCE_VIEW_NAME:
            names = [f"{e.record.project}/{e.record.name}" for e in entries]
            return pb.ListInstancesResponse(names=names, revision=revision, next_place=next_place)
        shown = [self._shown(e.record, e.revision) for e in entries]
        if request.view == pb.INSTANCE_VIEW_FULL:
            await self._add_state(shown, [e.record for e in entries], frozenset(request.figures))
        return pb.ListInstancesResponse(instances=shown, revision=revision, next_place=next_place)

    async def UpdateInstance(
        self, request: pb.UpdateInstanceRequest, context: Any
    ) -> pb.UpdateInstanceResponse:
        await self._claims.caught_up(request.project, request.name)
        wanted = Update(
            description=request.description,
            architecture=request.architecture,
            ephemeral=request.ephemeral if request.HasField("ephemeral") else None,
            profiles=tuple(request.profiles.names) if request.HasField("profiles") else None,
            config=dict(request.config),
            devices=_devices(request.devices),
            merge=request.merge,
        )
        operation = await self._changes.update(
            request.project, request.name, wanted, expected_revision=request.expected_revision
        )
        return pb.UpdateInstanceResponse(operation=self._answer(operation))

    async def FollowProfile(self, request: pb.FollowProfileRequest, context: Any) -> pb.FollowProfileResponse:
        await self._follow.settle(request.project, request.profile, request.revision)
        return pb.FollowProfileResponse()

    async def RenameInstance(
        self, request: pb.RenameInstanceRequest, context: Any
    ) -> pb.RenameInstanceResponse:
        operation = await self._changes.rename(request.project, request.name, request.new_name)
        return pb.RenameInstanceResponse(operation=self._answer(operation))

    async def ChangeInstanceState(
        self, request: pb.ChangeInstanceStateRequest, context: Any
    ) -> pb.ChangeInstanceStateResponse:
        await self._refuse_stateful(request)
        operation = await self._power.change(
            request.project,
            request.name,
            _action(request.action),
            timeout_s=request.timeout_s,
            force=request.force,
        )
        return pb.ChangeInstanceStateResponse(operation=self._answer(operation))

    async def ChangeAllInstanceStates(
        self, request: pb.ChangeAllInstanceStatesRequest, context: Any
    ) -> pb.ChangeAllInstanceStatesResponse:
        await self._refuse_stateful(request)
        operation = await self._power.change_all(
            request.project, _action(request.action), timeout_s=request.timeout_s, force=request.force
        )
        return pb.ChangeAllInstanceStatesResponse(operation=self._answer(operation))

    async def _refuse_stateful(
        self, request: pb.ChangeInstanceStateRequest | pb.ChangeAllInstanceStatesRequest
    ) -> None:
        """Raises: WrongState, in LXD's words."""
        if request.stateful:
            why = "Container has no existing state to restore"
            if request.action != pb.STATE_ACTION_START:
                why = not_live(await self._host.checkpoints.obstacle())
            raise WrongState("NO_STATEFUL", why, about="stateful")

    async def DeleteInstance(
        self, request: pb.DeleteInstanceRequest, context: Any
    ) -> pb.DeleteInstanceResponse:
        operation = await self._changes.delete(request.project, request.name)
        return pb.DeleteInstanceResponse(operation=self._answer(operation))

    async def GetInstanceMetrics(
        self, request: pb.GetInstanceMetricsRequest, context: Any
    ) -> pb.GetInstanceMetricsResponse:
        entries = self._host.store.instances.entries(keys.instances(request.project))
        own = [e.record for e in entries if self._runner.is_own(e.record.member)]
        pairs = [(record, self._observed(record)) for record in own]
        running = [(i, o) for i, o in pairs if o.pid]
        spaces = await figures.spaces(self._host, {i.pool for i, _ in running})
        return await asyncio.to_thread(_measured, self._host, running, spaces)

    async def GetRuntimeInfo(
        self, request: pb.GetRuntimeInfoRequest, context: Any
    ) -> pb.GetRuntimeInfoResponse:
        return pb.GetRuntimeInfoResponse(
            engine="lxc",
            engine_version=self._host.engine.version,
            kernel_features={**dict.fromkeys(_KERNEL, "true"), "shiftfs": "false"},
            engine_features=dict.fromkeys(_ENGINE, "true"),
            storage_drivers={name: driver.version for name, driver in self._host.drivers.items()},
            unavailable_storage_drivers=self._host.missing_drivers,
            architectures=architectures.of_host(),
        )

    # --- what is shown ---------------------------------------------------------------------------

    def _observed(self, instance: Instance) -> InstanceObserved:
        return self._host.store.observed_of(instance).record

    def _shown(self, instance: Instance, revision: int) -> pb.Instance:
        expanded = self._host.expanded(instance)
        return convert.instance(instance, self._observed(instance), expanded, revision)

    async def _add_state(
        self, shown: list[pb.Instance], instances: list[Instance], wanted: frozenset[str] = frozenset()
    ) -> None:
        """Fill in the figures: those of *wanted*, or all."""
        pairs = [(i, self._observed(i)) for i in instances]
        found = await asyncio.to_thread(figures.read_all, self._host, pairs, wanted=wanted)
        used = {}
        if not wanted or "disk" in wanted:
            used = await figures.disk_usage(self._host, instances)
        for message, figure in zip(shown, found, strict=True):
            convert.add_state(message, figure, used.get(message.id, {}))


def _measured(
    host: Host, running: list[tuple[Instance, InstanceObserved]], spaces: Mapping[str, PoolSpace]
) -> pb.GetInstanceMetricsResponse:
    """Read and tell, one after the other: the figures of a thousand instances are not held at once."""
    return metrics.message(figures.read_metrics(host, running), spaces)


def _page(entries: list[Entry[Instance]], after: str, limit: int) -> tuple[list[Entry[Instance]], str]:
    """Return the entries of a page, and the place where it ends when more follow."""
    if after:
        entries = [e for e in entries if _place(e.record) > after]
    if limit < 0:
        raise Invalid("BAD_LIMIT", "limit must not be negative", about="limit")
    if not limit or len(entries) <= limit:
        return entries, ""
    return entries[:limit], _place(entries[limit - 1].record)


def _place(instance: Instance) -> str:
    """Return what instances are sorted by."""
    return keys.instance(instance.project, instance.name).removeprefix(keys.INSTANCES)


def _devices(messages: Any) -> dict[str, dict[str, str]]:
    return without_empty({name: device.options for name, device in messages.items()})


def wanted_of(request: pb.CreateInstanceRequest) -> Wanted:
    return Wanted(
        project=request.project,
        name=request.name,
        source=source_of(request.source),
        description=request.description,
        architecture=request.architecture,
        ephemeral=request.ephemeral,
        profiles=tuple(request.profiles.names) if request.HasField("profiles") else None,
        config=dict(request.config),
        devices=_devices(request.devices),
        start=request.start,
    )


def source_of(message: pb.InstanceSource) -> Source:
    return Source(
        fingerprint=message.image_fingerprint,
        alias=message.image_alias,
        properties=dict(message.image_properties.properties),
        empty=message.empty,
    )


def _action(number: int) -> str:
    if number not in _ACTIONS:
        raise Invalid("BAD_ACTION", "Unknown state action")
    return _ACTIONS[number]  # type: ignore[index,unused-ignore]
