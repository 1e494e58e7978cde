"""What an evaluation leaves for people to look at: the CMC curve, each query's AP, and some ranked lists.

``retrieval.json`` needs nothing beside it: the pictures in its lists are small JPEGs, in base64.
"""

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from autoreid_fast.data.cache import ImageCache
from autoreid_fast.evaluation.features import LabeledFeatures
from autoreid_fast.evaluation.metrics import Evaluation
from autoreid_fast.models.activation import feature_shares
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.ops.batch_from_cache import batch_from_cache
from autoreid_fast.ops.nearest import nearest
from autoreid_fast.ops.rank_gallery import Relevance, relevance

KINDS = ("best", "typical", "worst")
QUERIES_A_KIND = 3
TOP = 10
CMC_RANKS = 50
ROWS_AT_ONCE = 8192  # of the gallery, which may be memory-mapped
THUMBNAIL_HEIGHT = 192
JPEG_QUALITY = 87

Record = dict[str, Any]


def retrieval_record(
    query: LabeledFeatures, gallery: LabeledFeatures, evaluation: Evaluation, lists: bool = True
) -> Record:
    """The curves of ``evaluation`` and, by Euclidean distance, the ranked lists of some queries, as JSON.

    ``cmc``: shares at ranks 1, 2, ...; ``average_precision`` and ``first_hit`` a query, None where it has no
    valid match; ``lists``: the best, typical and worst queries, each of another identity, and what they find
    first.
    """
    hits = evaluation.first_hit
    valid = hits > 0
    ranks = range(1, min(CMC_RANKS, len(gallery.pids)) + 1)
    record: Record = {
        "cmc": [round(float((hits[valid] <= rank).mean()), 6) for rank in ranks],
        "average_precision": [
            round(float(ap), 6) if ok else None
            for ap, ok in zip(evaluation.average_precision, valid, strict=True)
        ],
        "first_hit": [int(hit) if ok else None for hit, ok in zip(hits, valid, strict=True)],
        "lists": [],
    }
    if not lists:
        return record
    cameras = None if query.cameras is None or gallery.cameras is None else (query.cameras, gallery.cameras)
    labels = [torch.from_numpy(np.asarray(pids)) for pids in (query.pids, gallery.pids)]
    labels += [torch.from_numpy(np.asarray(each)) for each in cameras or ()]
    found = relevance(*labels)
    for kind, chosen in chosen_queries(evaluation, query.pids, found.match_offsets.diff().numpy()).items():
        for index in chosen:
            entries = _ranked(query, gallery, found, index)
            record["lists"].append(
                {
                    "kind": kind,
                    "query": _image(query, index),
                    "average_precision": round(float(evaluation.average_precision[index]), 6),
                    "first_hit": int(hits[index]),
                    "matches": int(found.match_offsets[index + 1] - found.match_offsets[index]),
                    "entries": entries,
                }
            )
    return record


def chosen_queries(evaluation: Evaluation, pids: np.ndarray, matches: np.ndarray) -> dict[str, list[int]]:
    """Three queries each of the highest, the median and the lowest AP, every one of another identity.

    Among equal ones the best is that of the most ``matches`` (Q,), the hardest to get right; then by index.
    """
    valid = np.flatnonzero(evaluation.first_hit > 0)
    precision = evaluation.average_precision[valid]
    orders = {
        "best": np.lexsort((valid, -matches[valid], -precision)),
        "worst": np.lexsort((valid, -matches[valid], precision)),
        "typical": np.lexsort((valid, np.abs(precision - np.median(precision)))),
    }
    taken: set[int] = set()
    chosen: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for _ in range(QUERIES_A_KIND):  # by turns, so that a few identities still give one of each kind
        for kind, order in orders.items():
            index = next((int(index) for index in valid[order] if int(pids[index]) not in taken), None)
            if index is not None:
                taken.add(int(pids[index]))
                chosen[kind].append(index)
    return chosen


def _ranked(
    query: LabeledFeatures, gallery: LabeledFeatures, found: Relevance, index: int
) -> list[dict[str, Any]]:
    """The first ten valid entries of one query, and its first match where that comes later."""
    matches = found.matches[found.match_offsets[index] : found.match_offsets[index + 1]]
    own = found.excluded[found.excluded_offsets[index] : found.excluded_offsets[index + 1]]
    keep = found.valid.clone()
    keep[own] = False
    entries = _nearest(query, gallery, index, keep, TOP)
    right = torch.zeros(len(keep), dtype=torch.bool)
    right[matches] = True
    if not any(right[entry] for _, entry in entries):
        entries += _nearest(query, gallery, index, right, 1)
    return [
        {**_image(gallery, entry), "distance": round(distance, 6), "match": bool(right[entry])}
        for distance, entry in entries
    ]


def _nearest(
    query: LabeledFeatures, gallery: LabeledFeatures, index: int, keep: torch.Tensor, count: int
) -> list[tuple[float, int]]:
    """(distance, index) of the ``count`` nearest entries in ``keep`` (G,) bool; ties by index."""
    feature = torch.from_numpy(np.array(query.features[index : index + 1]))
    found: list[tuple[float, int]] = []
    for start in range(0, len(keep), ROWS_AT_ONCE):
        rows = keep[start : start + ROWS_AT_ONCE].nonzero().squeeze(1)
        if len(rows):
            features = torch.from_numpy(gallery.features[start : start + ROWS_AT_ONCE][rows.numpy()])
            distances, places = nearest(feature, features, min(count, len(rows)))
            found += zip(distances[0].tolist(), (start + rows[places[0]]).tolist(), strict=True)
            found = sorted(found)[:count]
    return found


def _image(images: LabeledFeatures, index: int) -> dict[str, Any]:
    camera = None if images.cameras is None else int(images.cameras[index])
    return {"index": index, "path": images.paths[index], "pid": int(images.pids[index]), "camera": camera}


def add_pictures(
    record: Record, query: ImageCache, gallery: ImageCache, model: ReIDNetwork, device: torch.device
) -> None:
    """Give every image of the lists its ``picture``, and every query its ``looks``.

    ``looks`` are rows of the shares that the places of the last feature map have in the feature
    (`feature_shares`).
    """
    lists = record["lists"]
    for ranked in lists:
        ranked["query"]["picture"] = thumbnail(query.images[ranked["query"]["index"]])
        for entry in ranked["entries"]:
            entry["picture"] = thumbnail(gallery.images[entry["index"]])
    chosen = np.array([ranked["query"]["index"] for ranked in lists])
    images = torch.from_numpy(query.images[chosen]).to(device)
    index = torch.arange(len(chosen), device=device)
    still = torch.zeros_like(index)
    training = model.training
    model.eval()
    shares = feature_shares(model.backbone, batch_from_cache(images, index, still, still, still.bool()))
    model.train(training)
    for ranked, share in zip(lists, shares, strict=True):
        ranked["query"]["looks"] = [[round(value, 5) for value in row] for row in share.tolist()]


def thumbnail(image: np.ndarray) -> str:
    """A small JPEG of (H, W, 3) uint8, in base64."""
    picture = Image.fromarray(image)
    picture.thumbnail((4 * THUMBNAIL_HEIGHT, THUMBNAIL_HEIGHT))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
