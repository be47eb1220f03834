"""One file per figure; ``python -m benchmarks`` runs them and prints the table."""
