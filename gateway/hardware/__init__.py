"""The hardware of this host as /sys and /proc tell it to anybody. Never asks for a privilege."""
