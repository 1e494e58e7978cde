"""Synthetic pedestrians: the built-in data set, drawn and written in the layout of Market-1501."""

from autoreid_fast.data.synthetic.plan import SyntheticConfig
from autoreid_fast.data.synthetic.writer import generate

__all__ = ["SyntheticConfig", "generate"]
