"""What the wire means: decided from arguments alone, without waiting."""
