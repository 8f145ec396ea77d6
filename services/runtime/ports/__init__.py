"""What the use cases need from the host, by what it is about.

Implemented by engine/, storage/, devices/ and kernel/; fakes serve the unit tests. Everything named ensure_
may be repeated; everything that blocks runs in a thread inside the implementation.
"""

from services.runtime.ports.engine import Engine, EnginePlan, ExecPlan, ExitRecord, Mount, NicPlan, Told
from services.runtime.ports.guests import (
    GUEST_FOLDER,
    Cgroups,
    DiskUsage,
    Doors,
    Guest,
    GuestAddress,
    GuestDevices,
    GuestInterface,
    Guests,
    Usage,
    UsageDetails,
)
from services.runtime.ports.host import Boots, Checkpoints, HostEvents, Kernel, Probes, Ticks
from services.runtime.ports.storage import PoolSpace, RootFs, StorageDriver, VolumeKind

__all__ = [
    "GUEST_FOLDER",
    "Boots",
    "Cgroups",
    "Checkpoints",
    "DiskUsage",
    "Doors",
    "Engine",
    "EnginePlan",
    "ExecPlan",
    "ExitRecord",
    "Guest",
    "GuestAddress",
    "GuestDevices",
    "GuestInterface",
    "Guests",
    "HostEvents",
    "Kernel",
    "Mount",
    "NicPlan",
    "PoolSpace",
    "Probes",
    "RootFs",
    "StorageDriver",
    "Ticks",
    "Told",
    "Usage",
    "UsageDetails",
    "VolumeKind",
]
