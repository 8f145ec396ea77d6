"""What a device needs on the host: one file per type, from options and facts to a plan. Pure."""
