"""The member as containers: what compose.yaml at the root needs, and the test that brings it up."""
