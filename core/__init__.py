"""Shared library of every Podium process. Knows no service, no LXD, no kernel."""
