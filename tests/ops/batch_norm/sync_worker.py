"""One process of test_sync.py, with its rows of every case: sync_worker.py PROCESS PROCESSES FOLDER."""

import sys
from pathlib import Path

import torch
from torch import distributed, nn

from autoreid_fast import ops
from autoreid_fast.distributed.processes import WHOLE, current_shard
from autoreid_fast.models.sync import sync_layers
from autoreid_fast.nas.operations.fused import build_fused
from autoreid_fast.ops.batch_norm import sync_batch_norm
from autoreid_fast.ops.batch_norm.statistics import local_statistics

FLAGS = [True, False, True, True]


def layers() -> nn.Sequential:
    """Batch norm with and without affine part, over strips (1d) and pixels (2d), and dropout."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.BatchNorm2d(5), nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6, affine=False), nn.Flatten(2),
        nn.BatchNorm1d(6), nn.Flatten(), nn.Dropout(0.4), nn.Linear(12, 7), nn.BatchNorm1d(7),
    )  # fmt: skip
    return model.double()


def derived() -> nn.Sequential:
    """Operations of a derived network, fused ones."""
    torch.manual_seed(4)
    names = [("part_aware", 2), ("part_aware", 1), ("sep_conv_3x3", 1), ("dil_conv_3x3", 1)]
    return nn.Sequential(*(build_fused(name, 6, stride) for name, stride in names)).double()


def derived_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(10)
    x = 1 + 2 * torch.randn(12, 6, 9, 5, generator=generator, dtype=torch.float64)
    return x, torch.randn(12, 6, 5, 3, generator=generator, dtype=torch.float64)


def model_case(model: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, gradients and state after one step; the gradients are those of the sum over all rows."""
    torch.manual_seed(11)  # of the dropout
    x = x.clone().requires_grad_()
    y = model(x)
    y.backward(grad)
    found = {"y": y.detach(), "grad_x": x.grad}
    found |= {f"grad {name}": parameter.grad for name, parameter in model.named_parameters()}
    found |= {f"state {name}": value for name, value in model.state_dict().items()}
    found["next random number"] = torch.rand(())
    model.eval()
    with torch.no_grad():
        found["y in eval"] = model(x)
    return found


def model_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = 3 + 2 * torch.randn(12, 5, 3, 4, generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.5, 2, 12, dtype=torch.float64)[:, None, None, None], torch.randn(
        12, 7, generator=generator, dtype=torch.float64
    )


def mixed_inputs(dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """K candidates and the gradient, channels last, and the weights."""
    generator = torch.Generator().manual_seed(6)
    size = (12, 3, 5, 2)
    *candidates, grad = (
        (scale * torch.randn(size, generator=generator) + scale)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
        for scale in (1.0, 0.3, 4.0, 0.1, 1.0)
    )
    return (
        candidates,
        grad,
        torch.rand(len(FLAGS), generator=generator).to(torch.promote_types(dtype, torch.float32)),
    )


def mixed_case(dtype: torch.dtype, given: bool, rows: slice, sync: bool) -> dict[str, torch.Tensor]:
    candidates, grad, weights = mixed_inputs(dtype)
    candidates = [z[rows].requires_grad_() for z in candidates]
    weights.requires_grad_()
    running = [
        torch.zeros(len(FLAGS), 3, dtype=weights.dtype),
        torch.ones(len(FLAGS), 3, dtype=weights.dtype),
    ]
    known = None
    if given:  # of some candidates, a producer has the statistics
        known = [torch.stack(local_statistics(candidates[0].detach())), None, None, None]
    y = ops.mixed_op_sum(candidates, weights, FLAGS, *running, statistics=known, sync=sync)
    y.backward(grad[rows])
    found = {
        "y": y.detach(),
        "grad weights": weights.grad,
        "mean": running[0][[0, 2, 3]],
        "var": running[1][[0, 2, 3]],
    }
    return found | {f"grad {k}": z.grad for k, z in enumerate(candidates)}


def attention_case(rows: slice, sync: bool) -> dict[str, torch.Tensor]:
    """Two edges on one x of 6 channels and 7 rows, with an affine batch norm and a ReLU."""
    generator = torch.Generator().manual_seed(9)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()

    x, grad = draw(12, 6, 7, 3).detach(), draw(2, 12, 4, 5).detach()
    parameters = {
        "project_weight": draw(2, 4, 3, 6), "project_bias": draw(2, 4, 3), "key_weight": draw(2, 3, 3),
        "key_bias": draw(2, 3), "query_weight": draw(2, 3, 3), "query_bias": draw(2, 3),
        "fuse_weight": draw(2, 5, 3), "affine": draw(2, 2, 4, 3),
    }  # fmt: skip
    running = {"running_mean": torch.zeros(2, 4, 3).double(), "running_var": torch.ones(2, 4, 3).double()}
    x = x[rows].requires_grad_()
    y = ops.part_attention(x, **parameters, **running, relu=True, sync=sync)
    y.backward(grad[:, rows])
    found = {"y": y.detach().transpose(0, 1), "grad_x": x.grad}
    return found | {f"grad {name}": value.grad for name, value in parameters.items()} | running


def uneven_case() -> dict[str, torch.Tensor]:
    """Processes with a different number of rows each, and a large mean."""
    own = current_shard()
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(8)) + 1000
    cuts = torch.linspace(0, 1, own.processes + 1).square().mul(10).long() + torch.arange(own.processes + 1)
    cuts[-1] = 12
    y, statistics = sync_batch_norm(x[cuts[own.process] : cuts[own.process + 1]], None, None)
    return {"y": y, "mean": statistics.mean, "variance": statistics.variance}


MODELS = {"model": (layers, model_inputs), "derived": (derived, derived_inputs)}


def main() -> None:
    process, processes, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    assert current_shard() == WHOLE
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=process, world_size=processes
    )
    rows = current_shard().rows(12)
    found = {"uneven": uneven_case()}
    for case, (make, inputs) in MODELS.items():
        model = make()
        sync_layers(model, sync_bn=True)
        x, grad = inputs()
        found[case] = model_case(model, x[rows], grad[rows])
    found["attention"] = attention_case(rows, sync=True)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for given in (False, True):
            found[f"mixed {dtype} {given}"] = mixed_case(dtype, given, rows, sync=True)
    torch.save(found, folder / f"{process}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
