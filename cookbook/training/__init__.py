"""How the shipped judge was made: `python -m cookbook.training`."""
