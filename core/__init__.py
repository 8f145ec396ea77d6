"""Shared library of every Podium process: errors, state, operations, rpc. Knows no service, no LXD, no kernel."""
