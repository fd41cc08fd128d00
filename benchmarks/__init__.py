"""Benchmarks: candidates alternate in one run, each in a process of its own; only their ratios count."""
