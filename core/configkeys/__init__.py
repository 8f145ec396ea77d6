"""The one place where a configuration key exists: name, parser, default, live or not, doc."""
