"""Benchmarks, one file per op: ours against the reference, peers and the machine (`autoreid-fast bench`)."""

from .harness.bench import run

__all__ = ["run"]
