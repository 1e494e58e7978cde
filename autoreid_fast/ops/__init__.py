"""The kernels' public face, one file an op; importing it loads the native libraries that are there."""

from autoreid_fast.ops import library
from autoreid_fast.ops.batch_hard import MAX_ANCHORS, BatchHard, Form, batch_hard
from autoreid_fast.ops.contract import backend
from autoreid_fast.ops.k_reciprocal import KReciprocal, k_reciprocal, k_reciprocal_encode
from autoreid_fast.ops.library import status

__all__ = [
    "MAX_ANCHORS",
    "BatchHard",
    "Form",
    "KReciprocal",
    "backend",
    "batch_hard",
    "k_reciprocal",
    "k_reciprocal_encode",
    "status",
]

library.load()
