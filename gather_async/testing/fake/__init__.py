"""The fake Gather API on loopback: state, rules, faults and deliveries."""
