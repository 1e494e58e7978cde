"""Measurement of cases: candidates, parity, peers, floors, results and their tables."""
