"""Measure Podium and Debian's LXD 5.0.2 side by side with the same image and the same stock client."""
