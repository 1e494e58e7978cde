"""Which tensors count as channels last, and the strides that torch's batch norm reads rightly."""

import pytest
import torch

from autoreid_fast.ops.batch_norm.strides import canonical_strides, only_channels_last


@pytest.mark.parametrize(
    ("shape", "channels_last", "expected"),
    [
        ((2, 3, 4, 5), True, True),
        ((2, 3, 4, 5), False, False),
        ((2, 1, 4, 5), True, False),  # contiguous as well
        ((2, 3, 1, 1), True, False),
        ((2, 3, 4, 5), None, False),  # neither
    ],
)
def test_only_channels_last(shape: tuple[int, ...], channels_last: bool | None, expected: bool) -> None:
    x = torch.zeros(shape)
    if channels_last is None:
        x = torch.zeros(*shape[:-1], 2 * shape[-1])[..., ::2]
    elif channels_last:
        x = x.to(memory_format=torch.channels_last)
    assert only_channels_last(x) is expected


def test_odd_strides_of_narrow_tensors_become_those_of_channels_last() -> None:
    x = torch.arange(4.0).as_strided((1, 2, 1, 2), (4, 1, 2, 2))
    made = canonical_strides(x)
    assert made.stride() == (4, 1, 4, 2)
    assert torch.equal(made, x) and made.data_ptr() == x.data_ptr()
