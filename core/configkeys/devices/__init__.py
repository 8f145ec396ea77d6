"""Types of devices: one file per type with its options and what LXD says when they are wrong. Pure.

In core, since two services check them: profiles are written by cluster, instances by runtime.
"""
