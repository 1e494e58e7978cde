"""Measuring cases: candidates, parity, peers, floors, results and their tables."""
