"""Shared library of every Podium process. Knows no service, no LXD, no kernel."""

import os

# Before anything imports grpc, which reads it then: its fork handlers crash children of busy processes.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
