"""Devices of running instances: nodes, mounts and forwarders, by the kernel's own calls."""
