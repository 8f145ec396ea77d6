"""Custom volumes: made, changed, copied, backed up, and on their way to other servers."""
