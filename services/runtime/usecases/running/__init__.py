"""Instances while they run: start and stop, devices, limits, health, figures; starts of service and host."""
