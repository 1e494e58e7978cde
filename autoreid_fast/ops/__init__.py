"""The ops: one folder per op. Importing this package registers all ops and loads the native libraries."""

import sys

from autoreid_fast.ops import discovery, library
from autoreid_fast.ops.batch_from_cache import batch_from_cache
from autoreid_fast.ops.batch_hard import MAX_ANCHORS, BatchHard, Form, batch_hard
from autoreid_fast.ops.batch_norm import sync_batch_norm
from autoreid_fast.ops.contract import backend, specs
from autoreid_fast.ops.discovery import load_specs
from autoreid_fast.ops.k_reciprocal import KReciprocal, k_reciprocal, k_reciprocal_encode
from autoreid_fast.ops.library import runs_native, status
from autoreid_fast.ops.mixed_op_sum import MAX_CANDIDATES, mixed_op_sum
from autoreid_fast.ops.nearest import MAX_NEAREST, Nearest, nearest, nearest_block
from autoreid_fast.ops.part_attention import part_attention
from autoreid_fast.ops.rank_gallery import count_closer, count_closer_block, match_keys
from autoreid_fast.ops.separable_conv import SeparableConv, separable_conv
from autoreid_fast.ops.stencil3x3 import MAX_FILTERS, Stencil3x3, stencil3x3

__all__ = [
    "MAX_ANCHORS",
    "MAX_CANDIDATES",
    "MAX_FILTERS",
    "MAX_NEAREST",
    "BatchHard",
    "Form",
    "KReciprocal",
    "Nearest",
    "SeparableConv",
    "Stencil3x3",
    "backend",
    "batch_from_cache",
    "batch_hard",
    "count_closer",
    "count_closer_block",
    "k_reciprocal",
    "k_reciprocal_encode",
    "load_specs",
    "match_keys",
    "mixed_op_sum",
    "nearest",
    "nearest_block",
    "part_attention",
    "runs_native",
    "separable_conv",
    "specs",
    "status",
    "stencil3x3",
    "sync_batch_norm",
]

discovery.register_package(sys.modules[__name__])
library.load()
