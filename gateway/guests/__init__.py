"""The guest API: what containers may ask through /dev/lxd/sock. Served here, without privileges."""
