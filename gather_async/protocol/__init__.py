"""Meaning of the wire, decided from arguments alone, without waiting."""
