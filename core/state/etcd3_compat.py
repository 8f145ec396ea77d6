"""The `etcd3` package on a current protobuf: for administration and as a second client in tests.

Its own generated stubs predate protobuf 4 and do not load; ours describe the same wire and are put
in their place before it is imported. Synchronous; always give a timeout; never in a service.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from protos.etcd.v3 import etcd_pb2, etcd_pb2_grpc


def load() -> Any:
    """Return the module etcd3."""
    if "etcd3" not in sys.modules:
        stubs = types.ModuleType("etcd3.etcdrpc")
        for source in (etcd_pb2, etcd_pb2_grpc):
            public = {name: value for name, value in vars(source).items() if not name.startswith("_")}
            vars(stubs).update(public)
        sys.modules[stubs.__name__] = stubs
    import etcd3

    return etcd3


def client(endpoint: str, *, timeout_s: float = 5.0) -> Any:
    """Return an etcd3 client for "host:port", or for "unix:PATH:port" as etcd names its sockets."""
    host, _, port = endpoint.rpartition(":")
    return load().client(host=host, port=int(port), timeout=timeout_s)
