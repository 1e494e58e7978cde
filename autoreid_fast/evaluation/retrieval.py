"""The record of an evaluation for reports: CMC curve, AP per query, and ranked lists of some queries.

``retrieval.json`` holds it. The file needs no other: the pictures in its lists are small JPEGs in base64.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from autoreid_fast.data.batches import normalized
from autoreid_fast.data.cache import ImageCache
from autoreid_fast.evaluation.features import LabeledFeatures
from autoreid_fast.evaluation.metrics import Evaluation
from autoreid_fast.evaluation.protocol import Labels, relevance_of
from autoreid_fast.evaluation.thumbnail import thumbnail
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.models.saliency import saliency_maps
from autoreid_fast.ops import nearest

Kind = Literal["best", "typical", "worst"]

QUERIES_PER_KIND = 3
TOP = 10
CMC_RANKS = 50
ROWS_AT_ONCE = 8192  # of the gallery, which may be memory-mapped


@dataclass
class QueryImage:
    """The query of a ranked list; `add_pictures` fills the last two fields.

    ``picture`` is a JPEG in base64, ``saliency`` the rows of the query's saliency map (`saliency_maps`).
    """

    index: int
    path: str
    pid: int
    camera: int | None
    picture: str = ""
    saliency: Sequence[Sequence[float]] = ()


@dataclass
class GalleryImage:
    """An entry of a ranked list; `add_pictures` fills ``picture``, a JPEG in base64."""

    index: int
    path: str
    pid: int
    camera: int | None
    distance: float
    match: bool
    picture: str = ""


@dataclass
class RankedList:
    """A query and the entries nearest to it: the first ten, and the first match where it comes later."""

    kind: Kind
    query: QueryImage
    average_precision: float
    first_hit: int
    matches: int
    entries: list[GalleryImage]


@dataclass
class RetrievalRecord:
    """Curves and ranked lists of one evaluation.

    Attributes:
        cmc: fraction of the valid queries with a match at ranks 1, 2, ...
        average_precision: one per query, None where it has no valid match.
        first_hit: rank of the first match, one per query, None where it has no valid match.
        lists: ranked lists of the best, typical and worst queries, each of another identity.
    """

    cmc: list[float]
    average_precision: list[float | None]
    first_hit: list[int | None]
    lists: list[RankedList]

    def to_dict(self) -> dict[str, Any]:
        """The record as ``retrieval.json`` holds it."""
        record = asdict(self)
        for ranked in record["lists"]:
            ranked["query"]["looks"] = ranked["query"].pop("saliency")  # its name in the file
        return record


def retrieval_record(
    query: LabeledFeatures, gallery: LabeledFeatures, evaluation: Evaluation, lists: bool = True
) -> RetrievalRecord:
    """Record the curves of ``evaluation``, and with ``lists`` ranked lists by Euclidean distance."""
    hits = evaluation.first_hit
    valid = hits > 0
    ranks = range(1, min(CMC_RANKS, len(gallery.pids)) + 1)
    return RetrievalRecord(
        cmc=[round(float((hits[valid] <= rank).mean()), 6) for rank in ranks],
        average_precision=[
            round(float(precision), 6) if ok else None
            for precision, ok in zip(evaluation.average_precision, valid, strict=True)
        ],
        first_hit=[int(hit) if ok else None for hit, ok in zip(hits, valid, strict=True)],
        lists=_ranked_lists(query, gallery, evaluation) if lists else [],
    )


def choose_queries(evaluation: Evaluation, pids: np.ndarray, matches: np.ndarray) -> dict[Kind, list[int]]:
    """Choose three queries each of the highest, the median and the lowest AP, all of different identities.

    Among equal APs the best and the worst are those with the most ``matches`` (Q,), then by index.
    """
    valid = np.flatnonzero(evaluation.first_hit > 0)
    precision = evaluation.average_precision[valid]
    orders: dict[Kind, np.ndarray] = {
        "best": np.lexsort((valid, -matches[valid], -precision)),
        "worst": np.lexsort((valid, -matches[valid], precision)),
        "typical": np.lexsort((valid, np.abs(precision - np.median(precision)))),
    }
    chosen: dict[Kind, list[int]] = {kind: [] for kind in get_args(Kind)}
    chosen_pids: set[int] = set()
    for _ in range(QUERIES_PER_KIND):  # in turn, so that even a few identities give one query of each kind
        for kind, order in orders.items():
            index = next((int(index) for index in valid[order] if int(pids[index]) not in chosen_pids), None)
            if index is not None:
                chosen_pids.add(int(pids[index]))
                chosen[kind].append(index)
    return chosen


def add_pictures(
    record: RetrievalRecord, query: ImageCache, gallery: ImageCache, model: ReIDNetwork, device: torch.device
) -> None:
    """Add the pictures of all images in the ranked lists, and the queries' saliency maps by ``model``."""
    if not record.lists:
        return
    for ranked in record.lists:
        ranked.query.picture = thumbnail(query.images[ranked.query.index])
        for entry in ranked.entries:
            entry.picture = thumbnail(gallery.images[entry.index])
    indices = np.array([ranked.query.index for ranked in record.lists])
    images = normalized(torch.from_numpy(query.images[indices]).to(device))
    was_training = model.training
    model.eval()
    maps = saliency_maps(model.backbone, images)
    model.train(was_training)
    for ranked, saliency in zip(record.lists, maps, strict=True):
        ranked.query.saliency = [[round(value, 5) for value in row] for row in saliency.tolist()]


def _ranked_lists(
    query: LabeledFeatures, gallery: LabeledFeatures, evaluation: Evaluation
) -> list[RankedList]:
    relevance = relevance_of(_labels(query, gallery))
    matches = relevance.match_offsets.diff().numpy()
    lists = []
    for kind, indices in choose_queries(evaluation, query.pids, matches).items():
        for index in indices:
            ranked, matching = relevance.ranked_by(index), relevance.matching(index)
            lists.append(
                RankedList(
                    kind=kind,
                    query=QueryImage(
                        index, query.paths[index], int(query.pids[index]), _camera(query, index)
                    ),
                    average_precision=round(float(evaluation.average_precision[index]), 6),
                    first_hit=int(evaluation.first_hit[index]),
                    matches=int(matches[index]),
                    entries=_entries(query.features[index], gallery, ranked, matching),
                )
            )
    return lists


def _labels(query: LabeledFeatures, gallery: LabeledFeatures) -> Labels:
    """Labels of both; without cameras where one side does not know them."""
    pids = (torch.from_numpy(np.asarray(labeled.pids)) for labeled in (query, gallery))
    if query.cameras is None or gallery.cameras is None:
        return Labels(*pids)
    cameras = (torch.from_numpy(np.asarray(cameras)) for cameras in (query.cameras, gallery.cameras))
    return Labels(*pids, *cameras)


def _entries(
    feature: np.ndarray, gallery: LabeledFeatures, ranked: torch.Tensor, matching: torch.Tensor
) -> list[GalleryImage]:
    """The first ten entries that the query ranks, and its first match where that comes later.

    ``ranked`` and ``matching`` are (G,) bool.
    """
    nearest_entries = _nearest(feature, gallery, ranked, TOP)
    if not any(matching[index] for _, index in nearest_entries):
        nearest_entries += _nearest(feature, gallery, matching, 1)
    return [
        GalleryImage(
            index=index,
            path=gallery.paths[index],
            pid=int(gallery.pids[index]),
            camera=_camera(gallery, index),
            distance=round(distance, 6),
            match=bool(matching[index]),
        )
        for distance, index in nearest_entries
    ]


def _nearest(
    feature: np.ndarray, gallery: LabeledFeatures, candidates: torch.Tensor, count: int
) -> list[tuple[float, int]]:
    """(distance, index) of the ``count`` nearest entries in ``candidates`` (G,) bool; ties by index."""
    query = torch.from_numpy(np.array(feature[None]))
    entries: list[tuple[float, int]] = []
    for start in range(0, len(candidates), ROWS_AT_ONCE):
        rows = candidates[start : start + ROWS_AT_ONCE].nonzero().squeeze(1)
        if len(rows):
            features = torch.from_numpy(gallery.features[start : start + ROWS_AT_ONCE][rows.numpy()])
            distances, positions = nearest(query, features, min(count, len(rows)))
            entries += zip(distances[0].tolist(), (start + rows[positions[0]]).tolist(), strict=True)
            entries = sorted(entries)[:count]
    return entries


def _camera(images: LabeledFeatures, index: int) -> int | None:
    return None if images.cameras is None else int(images.cameras[index])
