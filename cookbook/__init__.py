"""Notebooks, sample data and benchmarks."""
