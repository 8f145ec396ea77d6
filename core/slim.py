"""Modules of a package without its __init__, which may load far more than is used."""

from __future__ import annotations

import importlib.util
import sys
import types


def bare_package(name: str) -> None:
    """Let submodules of *name* be imported without running its __init__; no effect once it was imported."""
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"The package {name} is not installed; run `make up`")
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package
