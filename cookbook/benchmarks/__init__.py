"""What costopt costs and saves, measured beside what it replaces: `make bench`."""
