"""k-reciprocal re-ranking in plain PyTorch; `autoreid_fast.ops.k_reciprocal` is the public face.

Sparse like the kernels (rows of pairs, never N x N), in chunks that bound the memory; float32 throughout.
"""

import torch
from torch import Tensor

CHUNK = 1 << 24  # elements of the largest temporary


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """(n, m) squared Euclidean distances of the rows of (n, D) and (m, D), not below 0."""
    norms = left.square().sum(1)[:, None] + right.square().sum(1)
    return torch.addmm(norms, left, right.T, alpha=-2).clamp_(min=0)


def half_of(k1: int) -> int:
    """How many of an image's neighbours, itself included, its half set looks at: k1 / 2, rounded half to even
    (as Zhong's and torchreid's Python have it), and the image."""
    return round(k1 / 2) + 1


def neighbors(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(N, count) int32: each image, then its nearest others, ties by index; (N,) its greatest distance."""
    total = len(features)
    found = torch.empty((total, count), dtype=torch.int32, device=features.device)
    farthest = features.new_empty(total)
    index = torch.arange(total, device=features.device)
    step = max(1, CHUNK // total)
    for start in range(0, total, step):
        rows = slice(start, start + step)
        squared = squared_distances(features[rows], features)
        squared[index[rows] - start, index[rows]] = -1.0  # the image itself comes first
        farthest[rows] = squared.amax(1).clamp(min=0)
        # the bits of floats from 0 on order as they do, and those of -1 are below: one word holds the order
        key = (squared.view(torch.int32).long() << 32) | index
        found[rows] = (key.topk(count, dim=1, largest=False).values & 0xFFFFFFFF).int()
    return found, farthest


def rows(features: Tensor, neighbors: Tensor, farthest: Tensor, k1: int) -> tuple[Tensor, Tensor, Tensor]:
    """V before query expansion, as CSR: offsets (N + 1,) int64, columns int32 ascending in a row, values."""
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
        theirs = half[full.clamp(min=0)]
        shared = (theirs[..., None] == full[:, None, None, :]).any(-1) & (theirs >= 0)
        joins = (full >= 0) & (3 * shared.sum(-1) > 2 * (theirs >= 0).sum(-1))
        theirs = theirs.masked_fill(~joins[..., None], -1)
        union = torch.cat([full, theirs.flatten(1)], 1)
        keys.append((index[chunk, None] * total + union)[union >= 0].unique())
    key = torch.cat(keys)
    row, column = key // total, key % total
    step = max(1, CHUNK // features.shape[1])
    squared = torch.cat(
        [
            (features[row[a : a + step]] - features[column[a : a + step]]).square().sum(1)
            for a in range(0, len(row), step)
        ]
    )
    weight = torch.exp(-squared / torch.where(farthest > 0, farthest, 1)[row])
    values = weight / weight.new_zeros(total).index_add_(0, row, weight)[row]
    return _offsets(row, total), column.int(), values


def expand(
    offsets: Tensor, columns: Tensor, values: Tensor, neighbors: Tensor, k2: int
) -> tuple[Tensor, Tensor, Tensor]:
    """V after local query expansion: row i is the mean of the rows of its k2 nearest, itself among them."""
    total = len(neighbors)
    near = neighbors[:, :k2].long()
    longest = int((offsets[1:] - offsets[:-1]).max())
    step = max(1, CHUNK // (near.shape[1] * longest))
    parts = []
    for start in range(0, total, step):
        source = near[start : start + step]
        owner, position = _spans(offsets, source.flatten())
        key, place = ((start + owner // near.shape[1]) * total + columns[position]).unique(
            return_inverse=True
        )
        mean = values.new_zeros(len(key)).index_add_(0, place, values[position]) / near.shape[1]
        parts.append((key, mean))
    key = torch.cat([key for key, _ in parts])
    return _offsets(key // total, total), (key % total).int(), torch.cat([mean for _, mean in parts])


def invert(offsets: Tensor, columns: Tensor, values: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows `first` to N by column: offsets (N + 1,), rows int32 from 0 on, ascending, and values."""
    total = len(offsets) - 1
    owner, position = _spans(offsets, torch.arange(first, total, device=offsets.device))
    column, order = columns[position].long().sort(stable=True)
    return _offsets(column, total), owner[order].int(), values[position[order]]


def block(
    queries: Tensor,
    gallery: Tensor,
    farthest: Tensor,
    offsets: Tensor,
    columns: Tensor,
    values: Tensor,
    inverse_offsets: Tensor,
    inverse_rows: Tensor,
    inverse_values: Tensor,
    lambda_value: float,
) -> Tensor:
    """(q, G) final distances of some queries, `offsets` (q + 1,) being their part of V's."""
    count, size = len(queries), len(gallery)
    final = squared_distances(queries, gallery) / torch.where(farthest > 0, farthest, 1)[:, None]
    step = max(1, CHUNK // (64 * size))
    for start in range(0, count, step):
        query = torch.arange(start, min(start + step, count), device=offsets.device)
        owner, own = _spans(offsets, query)
        entry, theirs = _spans(inverse_offsets, columns[own].long())
        least = torch.minimum(values[own[entry]], inverse_values[theirs])
        overlap = final.new_zeros(len(query) * size)
        overlap.index_add_(0, owner[entry] * size + inverse_rows[theirs], least)
        overlap = overlap.view(-1, size)
        jaccard = 1 - overlap / (2 - overlap)
        final[query] = (1 - lambda_value) * jaccard + lambda_value * final[query]
    return final


def _mutual(lists: Tensor, index: Tensor) -> Tensor:
    """The rows `index` of `lists` (N, n), with -1 for those neighbours that do not have the row in theirs."""
    near = lists[index]
    return near.masked_fill(~(lists[near] == index[:, None, None]).any(-1), -1)


def _offsets(row: Tensor, total: int) -> Tensor:
    counts = torch.bincount(row, minlength=total)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _spans(offsets: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """All entries of the spans `index` of a CSR: which of `index` each belongs to, and where it lies."""
    starts = offsets[index]
    lengths = offsets[index + 1] - starts
    owner = torch.arange(len(index), device=index.device).repeat_interleave(lengths)
    before = lengths.cumsum(0) - lengths
    return owner, torch.arange(len(owner), device=index.device) + (starts - before)[owner]
