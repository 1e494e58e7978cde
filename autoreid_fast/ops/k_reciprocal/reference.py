"""Reference of k-reciprocal re-ranking in plain PyTorch, one function per step of `ops.k_reciprocal`.

Rows are sparse, as in the kernels: never (N, N). Work is done in chunks that bound the memory.
"""

import torch
from torch import Tensor

from autoreid_fast.ops.csr import offsets_of

CHUNK = 1 << 24
"""Elements of the largest temporary."""


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """(n, m) squared Euclidean distances of the rows of (n, D) and (m, D), at least 0."""
    norms = left.square().sum(1)[:, None] + right.square().sum(1)
    return torch.addmm(norms, left, right.T, alpha=-2).clamp_(min=0)


def half_of(k1: int) -> int:
    """Number of neighbours, the image itself included, in the half set R(q, k1 / 2) of an image.

    k1 / 2 is rounded half to even, as in the Python of Zhong and torchreid.
    """
    return round(k1 / 2) + 1


def neighbors(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Nearest neighbours and the farthest distance of every image.

    Args:
        features: (N, D).
        count: neighbours per image.

    Returns:
        (N, count) int32: the image itself, then the others by distance, equal ones by index; and (N,) its
        greatest squared distance. The order is that of float32.
    """
    total = len(features)
    nearest = torch.empty((total, count), dtype=torch.int32, device=features.device)
    farthest = features.new_empty(total)
    index = torch.arange(total, device=features.device)
    step = max(1, CHUNK // total)
    for start in range(0, total, step):
        rows = slice(start, start + step)
        squared = squared_distances(features[rows], features)
        squared[index[rows] - start, index[rows]] = -1.0  # the image itself comes first
        farthest[rows] = squared.amax(1).clamp(min=0)
        # The bits of floats from 0 on are ordered as the floats, and those of -1 are below: as the high half
        # of an int64, with the index as the low half, they order by distance and then by index.
        key = (squared.float().view(torch.int32).long() << 32) | index
        nearest[rows] = (key.topk(count, dim=1, largest=False).values & 0xFFFFFFFF).int()
    return nearest, farthest


def rows(features: Tensor, neighbors: Tensor, farthest: Tensor, k1: int) -> tuple[Tensor, Tensor, Tensor]:
    """V before query expansion, in CSR form.

    Returns:
        offsets (N + 1,) int64, columns int32 ascending within a row, and values.
    """
    total = len(features)
    near, closest = neighbors[:, : k1 + 1].long(), neighbors[:, : half_of(k1)].long()
    index = torch.arange(total, device=near.device)
    width, depth = near.shape[1], closest.shape[1]
    step = max(1, CHUNK // (width * width * depth))
    chunks = [slice(start, start + step) for start in range(0, total, step)]
    half = torch.cat([_mutual(closest, index[chunk]) for chunk in chunks])
    keys = []
    for chunk in chunks:
        full = _mutual(near, index[chunk])
        candidates = half[full.clamp(min=0)]
        shared = (candidates[..., None] == full[:, None, None, :]).any(-1) & (candidates >= 0)
        joins = (full >= 0) & (3 * shared.sum(-1) > 2 * (candidates >= 0).sum(-1))
        candidates = candidates.masked_fill(~joins[..., None], -1)
        union = torch.cat([full, candidates.flatten(1)], 1)
        keys.append((index[chunk, None] * total + union)[union >= 0].unique())
    key = torch.cat(keys)
    row, column = key // total, key % total
    step = max(1, CHUNK // features.shape[1])
    squared = torch.cat(
        [
            (features[row[start : start + step]] - features[column[start : start + step]]).square().sum(1)
            for start in range(0, len(row), step)
        ]
    )
    weight = torch.exp(-squared / torch.where(farthest > 0, farthest, 1)[row])
    values = weight / weight.new_zeros(total).index_add_(0, row, weight)[row]
    return _offsets(row, total), column.int(), values


def expand(
    offsets: Tensor, columns: Tensor, values: Tensor, neighbors: Tensor, k2: int
) -> tuple[Tensor, Tensor, Tensor]:
    """V after local query expansion: row i is the mean of the rows of its k2 nearest, itself included."""
    total = len(neighbors)
    near = neighbors[:, :k2].long()
    longest = int((offsets[1:] - offsets[:-1]).max())
    step = max(1, CHUNK // (near.shape[1] * longest))
    parts = []
    for start in range(0, total, step):
        averaged = near[start : start + step]
        owner, position = _spans(offsets, averaged.flatten())
        key, target = ((start + owner // near.shape[1]) * total + columns[position]).unique(
            return_inverse=True
        )
        mean = values.new_zeros(len(key)).index_add_(0, target, values[position]) / near.shape[1]
        parts.append((key, mean))
    key = torch.cat([key for key, _ in parts])
    return _offsets(key // total, total), (key % total).int(), torch.cat([mean for _, mean in parts])


def invert(offsets: Tensor, columns: Tensor, values: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``first`` to N - 1 of V by column.

    Returns:
        offsets (N + 1,) int64, rows int32 counted from ``first`` and ascending within a column, and values.
    """
    total = len(offsets) - 1
    owner, position = _spans(offsets, torch.arange(first, total, device=offsets.device))
    column, order = columns[position].long().sort(stable=True)
    return _offsets(column, total), owner[order].int(), values[position[order]]


def block(
    queries: Tensor,  # (q, D)
    gallery: Tensor,  # (G, D)
    farthest: Tensor,  # (q,)
    offsets: Tensor,  # (q + 1,), into columns and values
    columns: Tensor,
    values: Tensor,
    inverse_offsets: Tensor,  # (N + 1,), into inverse_rows and inverse_values
    inverse_rows: Tensor,
    inverse_values: Tensor,
    lambda_value: float,
) -> Tensor:
    """(q, G) final distances of some queries to the whole gallery."""
    count, size = len(queries), len(gallery)
    final = squared_distances(queries, gallery) / torch.where(farthest > 0, farthest, 1)[:, None]
    step = max(1, CHUNK // (64 * size))
    for start in range(0, count, step):
        query = torch.arange(start, min(start + step, count), device=offsets.device)
        owner, position = _spans(offsets, query)
        entry, inverse_position = _spans(inverse_offsets, columns[position].long())
        least = torch.minimum(values[position[entry]], inverse_values[inverse_position])
        overlap = final.new_zeros(len(query) * size)
        overlap.index_add_(0, owner[entry] * size + inverse_rows[inverse_position], least)
        overlap = overlap.view(-1, size)
        jaccard = 1 - overlap / (2 - overlap)
        final[query] = (1 - lambda_value) * jaccard + lambda_value * final[query]
    return final


def _mutual(lists: Tensor, index: Tensor) -> Tensor:
    """The rows ``index`` of ``lists`` (N, n), with -1 for the neighbours whose own lists lack the row."""
    near = lists[index]
    return near.masked_fill(~(lists[near] == index[:, None, None]).any(-1), -1)


def _offsets(row: Tensor, total: int) -> Tensor:
    return offsets_of(torch.bincount(row, minlength=total))


def _spans(offsets: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of the CSR rows ``index``: the position of the row in ``index``, and that in the CSR."""
    starts = offsets[index]
    lengths = offsets[index + 1] - starts
    owner = torch.arange(len(index), device=index.device).repeat_interleave(lengths)
    before = lengths.cumsum(0) - lengths
    return owner, torch.arange(len(owner), device=index.device) + (starts - before)[owner]
