"""The doubles."""
