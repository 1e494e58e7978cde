"""Each op against its twin, the compiled twin, its peers and the machine: ``autoreid-fast bench``."""

from .harness.bench import run

__all__ = ["run"]
