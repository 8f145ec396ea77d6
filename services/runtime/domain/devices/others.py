"""tpm, infiniband, and what needs no work of the runtime."""

from __future__ import annotations

from services.runtime.domain.devices.plan import DevicePlan, Facts, Options, cannot_start
from services.runtime.domain.devices.unix import node


def plan_nothing(device: str, options: Options, facts: Facts) -> DevicePlan:
    """none removes what a profile brings; a NIC is the network service's; the root is mounted before."""
    return DevicePlan(device)


def plan_tpm(device: str, options: Options, facts: Facts) -> DevicePlan:
    """An emulator's device node comes from the kernel's proxy for TPMs: both are needed."""
    if not facts.has_program("swtpm"):
        raise cannot_start(device, "Failed to validate environment: Required tool 'swtpm' is missing")
    if facts.node("/dev/vtpmx") is None:
        raise cannot_start(
            device, "Failed to validate environment: This kernel has no tpm_vtpm_proxy (/dev/vtpmx)"
        )
    raise cannot_start(device, "TPM devices are not available in this version")


def plan_infiniband(device: str, options: Options, facts: Facts) -> DevicePlan:
    """Its interface goes inside as that of a physical NIC does (expand.nics_of); here are its nodes."""
    parent = options["parent"]
    if not facts.has_interface(parent):
        raise cannot_start(device, f"Parent device '{parent}' doesn't exist")
    if options["nictype"] == "sriov":
        raise cannot_start(device, "Virtual functions are not handed out; use nictype=physical")
    paths = facts.infiniband_nodes(parent)
    if not paths:
        raise cannot_start(device, f'Infiniband device "{parent}" not found')
    nodes = [node(path, found.kind, found, {"mode": "0660"}) for path in paths if (found := facts.node(path))]
    return DevicePlan(device, tuple(nodes))
