"""Instances as archives and streams: backups, and the ways to and from other servers."""
