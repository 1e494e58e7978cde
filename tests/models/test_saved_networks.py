"""State dicts of an earlier version (commit 21ef62b) fit today's networks and give the same outputs.

For networks of that commit the fixture holds a checksum of the state dict's keys and shapes, one of the order
of parameters (optimiser states refer to it), and outputs with weights that depend only on their keys.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoreid_fast.models.backbones.resnet import ResNet
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.nas import GENOTYPES, DerivedNetwork, SampledSupernet, SourceSupernet, Supernet

BEFORE = json.loads((Path(__file__).parent / "fixtures" / "networks_21ef62b.json").read_text())
CELLS = (1, 1, 1, 1)


def derived(name: str) -> DerivedNetwork:
    return DerivedNetwork(GENOTYPES[name], 4, CELLS)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "supernet": lambda: Supernet(3, CELLS),
    "source_supernet": lambda: SourceSupernet(3, CELLS),
    "sampled_supernet": lambda: SampledSupernet(3, CELLS),
    "embedding": lambda: ReIDNetwork(derived("autoreid_base_reid"), 5, 6),
    "embedding_5x5": lambda: ReIDNetwork(derived("gdas_v1"), 5, 6),
    "pcb": lambda: ReIDNetwork(derived("autoreid_retrieval"), 5, tail="pcb"),
    "hpm": lambda: ReIDNetwork(ResNet(18, 2), 5, tail="hpm"),
    "resnet50": lambda: ReIDNetwork(ResNet(50, 2, last_stride=1), 5, 6),
}


def checksum(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def weights_by_key(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Random weights, each from a seed that depends on its key only."""
    filled = dict(state)
    for name, tensor in state.items():
        if tensor.is_floating_point():
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
            generator = torch.Generator().manual_seed(seed)
            values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            filled[name] = values + 0.5 if "running_var" in name else values - 0.4
    return filled


@pytest.mark.parametrize("name", BEFORE)
def test_state_dict_parameter_order_and_outputs_are_as_before(name: str) -> None:
    before, model = BEFORE[name], NETWORKS[name]().double().eval()
    state = model.state_dict()
    assert len(state) == before["entries"]
    assert checksum([f"{key} {tuple(value.shape)}" for key, value in state.items()]) == before["state_dict"]
    assert checksum([key for key, _ in model.named_parameters()]) == before["parameters"]

    model.load_state_dict(weights_by_key(state))
    images = torch.rand(2, 3, 97, 33, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.manual_seed(2)
    with torch.no_grad():
        output = model(images)
    if not isinstance(output, Tensor):
        output = torch.cat([part.flatten(1) for part in output], 1)
    summary = torch.stack([output.mean(), output.std(), output.abs().max(), *output[:, 0]])
    expected = torch.tensor(before["output"], dtype=torch.float64)
    torch.testing.assert_close(summary, expected, rtol=1e-9, atol=1e-9)


def test_source_supernet_converts_as_before() -> None:
    source = SourceSupernet(3, CELLS).double()
    source.load_state_dict(weights_by_key(source.state_dict()))
    digest = hashlib.sha256()
    for name, tensor in source.reference_state_dict().items():
        digest.update(name.encode() + tensor.double().numpy().tobytes())
    assert digest.hexdigest()[:16] == BEFORE["source_supernet"]["converted"]
