"""Candidate operations: plain modules, the part-aware module, and fused versions for derived networks."""
