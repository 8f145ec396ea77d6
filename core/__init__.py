"""What all services share: errors, state, operations, rpc. No service, no kernel."""

import os

# Before anything imports grpc, which reads it then: its fork handlers crash children of busy processes.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
