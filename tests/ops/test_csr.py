"""Ragged rows in CSR form."""

import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.csr import offsets_of, require_end, row_indices, slice_rows

OFFSETS = torch.tensor([0, 2, 2, 5])
ENTRIES = torch.tensor([7, 1, 3, 4, 9])


def test_rows_of_entries() -> None:
    assert row_indices(OFFSETS).tolist() == [0, 0, 2, 2, 2]
    assert row_indices(torch.tensor([0])).tolist() == []
    assert torch.equal(offsets_of(torch.tensor([2, 0, 3])), OFFSETS)


def test_slices() -> None:
    for start, stop, offsets, entries in (
        (0, 3, [0, 2, 2, 5], [7, 1, 3, 4, 9]),
        (1, 3, [0, 0, 3], [3, 4, 9]),
        (2, 2, [0], []),
    ):
        part_offsets, part_entries = slice_rows(OFFSETS, ENTRIES, start, stop)
        assert part_offsets.tolist() == offsets
        assert part_entries.tolist() == entries


def test_offsets_end_at_the_number_of_entries() -> None:
    require_end("op", "offsets", OFFSETS, "entries", ENTRIES)
    for wrong in (ENTRIES[:3], ENTRIES.repeat(2)):
        with pytest.raises(AutoReIDError, match=r"^op: `entries` has \d+ entries; expected 5, .* `offsets`"):
            require_end("op", "offsets", OFFSETS, "entries", wrong)
    require_end("op", "offsets", OFFSETS.to("meta"), "entries", ENTRIES)  # no host sync on a GPU
