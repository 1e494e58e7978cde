"""Searching an architecture: algorithms, their steps, config and run."""
