"""Each op against its twin, the compiled twin, its peers and the machine: ``autoreid-fast bench``."""

from .bench import run

__all__ = ["run"]
