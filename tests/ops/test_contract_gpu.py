"""The contract of every op on an NVIDIA GPU: parity in float64, and every element written."""

import pytest
import torch

from autoreid_fast import ops
from autoreid_fast.ops.parity import deviations, poisoned_memory
from autoreid_fast.ops.sampling import Draw

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
SPECS = {spec.name: spec for spec in ops.specs() if spec.sample is not None}


@pytest.mark.parametrize("name", SPECS)
def test_parity_and_every_element_is_written(name: str) -> None:
    spec = SPECS[name]
    assert spec.sample is not None
    for dtype in spec.dtypes:
        for seed in range(4):
            with poisoned_memory():
                found = deviations(spec, spec.sample(Draw(seed, dtype, device="cuda")))
            assert not [each for each in found if not each.passed], (dtype, seed)
