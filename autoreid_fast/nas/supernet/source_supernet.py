"""Supernet arranged by source: `Supernet`'s function, with the parameters of equal candidates stacked."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.space import search_space
from autoreid_fast.nas.state import require_state
from autoreid_fast.nas.supernet.source_cell import SourceCell
from autoreid_fast.nas.supernet.supernet import Supernet
from autoreid_fast.nas.supernet.weight_map import weight_map


class SourceSupernet(Supernet):
    """`Supernet`, several times faster in half the memory: images (N, 3, H, W) -> f (N, 32 * ``channels``).

    Outputs and gradients equal those of `Supernet` up to rounding, and so do the initial weights: one random
    state gives both the same. `load_reference_state_dict` and `reference_state_dict` convert state dicts.

    Args:
        channels: C, channels of the first convolution (paper: 32 in the search).
        cells_per_block: l, cells in each of the four blocks (paper: 2 2 2 2).
        space: Name of the search space; it must have the candidates of ``"standard"``.

    Raises:
        AutoReIDError: as for `Supernet`, or a space without one of these candidates.

    Examples:
        >>> import torch
        >>> from autoreid_fast.nas import SourceSupernet, Supernet
        >>> fast = SourceSupernet(channels=3, cells_per_block=(1, 1, 1, 1)).eval()
        >>> reference = Supernet(channels=3, cells_per_block=(1, 1, 1, 1)).eval()
        >>> _ = reference.load_state_dict(fast.reference_state_dict())
        >>> images = torch.randn(2, 3, 97, 32)
        >>> torch.allclose(fast(images), reference(images), rtol=1e-3, atol=1e-4)
        True
    """

    cell_type = SourceCell

    def __init__(
        self, channels: int = 32, cells_per_block: Sequence[int] = (2, 2, 2, 2), space: str = "reid"
    ) -> None:
        missing = [name for name in search_space("standard")[1:] if name not in search_space(space)]
        if missing:
            raise AutoReIDError(
                f"search space {space!r}: the supernet arranged by source needs {', '.join(missing)}; add "
                "them, or use supernet reference"
            )
        reference = Supernet(channels, cells_per_block, space)
        with torch.random.fork_rng(devices=[]):
            super().__init__(channels, cells_per_block, space)
        self._load(reference)

    def load_reference_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the state dict of a `Supernet` of the same channels, cells and space, or nothing.

        Raises:
            AutoReIDError: keys or shapes that are not such a supernet's, or values that are not finite.
        """
        reference = self._reference()
        require_state(reference.state_dict(), state, "load_reference_state_dict: `state`")
        missing = reference.state_dict().keys() - state.keys()  # only counters of batches
        state = state | {key: torch.tensor(0) for key in missing}
        reference.load_state_dict(state, assign=True)
        self._load(reference)

    def reference_state_dict(self) -> dict[str, Tensor]:
        """Return the state dict for a `Supernet` of the same channels, cells and space."""
        reference = self._reference().to_empty(device=self.alpha_normal.device).to(self.alpha_normal.dtype)
        with torch.no_grad():
            batches = self.head.norm.get_buffer("num_batches_tracked")
            own, converted = self.state_dict(), reference.state_dict()
            for name in own.keys() & converted.keys():
                converted[name].copy_(own[name])
            for module in reference.modules():
                # batch norms inside fused ops do not count their batches: all have seen the same
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    module.get_buffer("num_batches_tracked").copy_(batches)
            for weight_slice in weight_map(self.cells(), reference.cells()):
                weight_slice.store()
        return reference.state_dict()

    def _reference(self) -> Supernet:
        """Create the corresponding `Supernet`, without memory for its tensors."""
        with torch.device("meta"):
            return Supernet(self.channels, self.cells_per_block, self.space)

    def _load(self, reference: Supernet) -> None:
        own, state = self.state_dict(), reference.state_dict()
        with torch.no_grad():
            for name in own.keys() & state.keys():
                own[name].copy_(state[name])
            for weight_slice in weight_map(self.cells(), reference.cells()):
                weight_slice.load()
