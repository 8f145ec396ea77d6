"""Instances that are made, changed, copied and deleted, and their snapshots."""
