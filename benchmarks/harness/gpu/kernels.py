"""Items: the machine's ceilings, and every op against its reference and its floor."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..bench import measure
from ..case import Variant, find
from ..measure import ceiling
from .items import Figures, Setting

DTYPES = (torch.float32, torch.bfloat16)


def ceilings(setting: Setting) -> Figures:
    """Copy bandwidth and GEMM rate in float32 and, on a GPU, bfloat16."""
    rates = {dtype: ceiling(setting.device, dtype) for dtype in DTYPES[: 1 if setting.toy else 2]}
    return {
        str(dtype).removeprefix("torch."): {
            "copy_bytes_per_s": rate.copy_bytes_per_s,
            "gemm_flops_per_s": rate.gemm_flops_per_s,
        }
        for dtype, rate in rates.items()
    }


def op(setting: Setting, name: str, rivals: bool = False) -> Figures:
    """Rows of a case on the device, as called and as a CUDA graph, next to its reference and any rivals."""
    [case] = find([name])
    case = case if rivals else replace(case, rivals=False)
    variants = variants_of(case.variants, setting)
    rows = [measure(case, variant, 0.01 if setting.toy else 0.05) for variant in variants]
    return {"rows": [row.model_dump(mode="json") for row in rows]}


def variants_of(variants: Sequence[Variant], setting: Setting) -> list[Variant]:
    """Those of the device; at toy sizes the one with the fewest elements."""
    chosen = [variant for variant in variants if variant.device == setting.device]
    return [min(chosen, key=lambda variant: sum(variant.sizes.values()))] if setting.toy else chosen
