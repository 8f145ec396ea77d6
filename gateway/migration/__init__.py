"""Instances to and from other servers, over the websockets that LXD's clients arrange."""
