"""Part-aware module compared with loops over images, strips and rows."""

import pytest
import torch
from torch.nn import functional as F

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.operations.layers import FactorizedReduce
from autoreid_fast.nas.operations.part_aware import PartAware, strip_of_rows
from autoreid_fast.nas.operations.registry import build_operation
from autoreid_fast.ops.part_attention.strips import PARTS, strip_bounds


def looped(module: PartAware, x: torch.Tensor) -> torch.Tensor:
    """Fig. 2 one strip at a time, in evaluation mode."""
    n, c, height, width = x.shape
    h = c // 3
    _, conv, bn = module.project
    fused = torch.zeros(n, c + h, height, width, dtype=x.dtype)
    fused[:, :c] = x
    for image in range(n):
        strips = [range(int(i * height / 4), int((i + 1) * height / 4)) for i in range(4)]
        f = []
        for i, rows in enumerate(strips):
            mean = sum(x[image, :, row].sum(dim=1) for row in rows) / (len(rows) * width)
            part_rows = slice(i * h, (i + 1) * h)
            vector = conv.weight[part_rows, :, 0] @ mean.clamp(min=0) + conv.bias[part_rows]
            scale = bn.weight[part_rows] / (bn.running_var[part_rows] + bn.eps).sqrt()
            f.append((vector - bn.running_mean[part_rows]) * scale + bn.bias[part_rows])
        for i, rows in enumerate(strips):
            key = module.key(f[i])
            attention = torch.softmax(torch.stack([key @ module.query(other) for other in f]), dim=0)
            part = sum(attention[j] * f[j] for j in range(4))
            for row in rows:
                fused[image, c:, row] = part[:, None]
    return module.fuse(fused)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(4, 1), (7, 3), (8, 2), (9, 4)])
def test_equals_the_loops(height: int, width: int, stride: int) -> None:
    module = build_operation("part_aware", 7, stride, affine=True).double()
    for _ in range(3):  # running statistics and affine parameters different from their initial values
        module(torch.randn(4, 7, height, width).double() * 2 + 1)
    torch.nn.init.normal_(module.project[2].weight)
    torch.nn.init.normal_(module.project[2].bias)
    module.eval()
    x = torch.randn(2, 7, height, width).double()
    torch.testing.assert_close(module(x), looped(module, x))


def test_strip_of_rows_agrees_with_the_bounds() -> None:
    for height in range(PARTS, 40):
        bounds = strip_bounds(height)
        assert bounds[0][0] == 0 and bounds[-1][1] == height
        expected = [m for m, rows in enumerate(bounds) for _ in range(*rows)]
        assert strip_of_rows(height, torch.device("cpu")).tolist() == expected


def test_each_strip_has_its_own_batch_statistics() -> None:
    module = build_operation("part_aware", 6, 1, affine=False)
    x = torch.randn(8, 6, 8, 2)
    vectors = module._body_vectors(x)
    assert vectors.shape == (8, 4, 2)
    torch.testing.assert_close(vectors.mean(dim=0), torch.zeros(4, 2), atol=1e-6, rtol=0)
    expected = F.batch_norm(
        F.conv1d(x[:, :, 2:4].mean(dim=(2, 3)).relu()[..., None], module.project[1].weight[2:4], None),
        None,
        None,
        training=True,
    )
    torch.testing.assert_close(vectors[:, 1], expected[..., 0], atol=1e-4, rtol=1e-4)


def test_fuses_by_factorized_reduce_at_stride_two() -> None:
    assert isinstance(build_operation("part_aware", 6, 2, affine=True).fuse, FactorizedReduce)


def test_parameter_count() -> None:
    """4 x (C h + h) projections, 2 x (h^2 + h) attention, (C + h) C fusion, affine pairs of 4 h and C."""
    c, h = 12, 4
    module = build_operation("part_aware", c, 1, affine=True)
    expected = 4 * (c * h + h) + 2 * (h * h + h) + (c + h) * c + 2 * 4 * h + 2 * c
    assert sum(parameter.numel() for parameter in module.parameters()) == expected


def test_refuses_too_few_rows_images_and_channels() -> None:
    module = build_operation("part_aware", 6, 1, affine=True)
    with pytest.raises(AutoReIDError, match="got 3 rows and needs 4"):
        module(torch.randn(2, 6, 3, 8))
    with pytest.raises(AutoReIDError, match="batch of one"):
        module(torch.randn(1, 6, 8, 8))
    assert module.eval()(torch.randn(1, 6, 8, 8)).shape == (1, 6, 8, 8)
    with pytest.raises(AutoReIDError, match="at least 3 channels, got 2"):
        build_operation("part_aware", 2, 1, affine=True)
