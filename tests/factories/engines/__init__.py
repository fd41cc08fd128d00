"""Engines for tests, importable by the processes that tests start."""
