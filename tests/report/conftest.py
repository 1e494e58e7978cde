"""Run folders as the commands write them, with a file name that attempts an HTML injection."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoreid_fast.evaluation.thumbnail import thumbnail
from autoreid_fast.files import write_json
from autoreid_fast.nas.derivation import derive
from autoreid_fast.nas.published import GENOTYPES
from autoreid_fast.report.pages.run import write_report
from autoreid_fast.report.plots.theme import Drawing
from autoreid_fast.runs.folder import RunFolder

HOSTILE = """<script>alert("1")</script>' onerror='alert(1)&$x$.jpg"""
EPOCHS = 3


def image(path: str, pid: int, seed: int) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 12, 3), dtype=np.uint8)
    return {"index": seed, "path": path, "pid": pid, "camera": 1 + seed % 2, "picture": thumbnail(pixels)}


def ranked(kind: str, precision: float, first_hit: int) -> dict[str, Any]:
    """A list of three entries, followed by the first match if it ranks lower."""
    entries = [
        image(f"{rank}.jpg", rank, rank) | {"distance": rank / 10, "match": False} for rank in (1, 2, 3)
    ]
    if first_hit <= 3:
        entries[first_hit - 1]["match"] = True
    else:
        entries.append(image("late.jpg", 7, 9) | {"distance": 1.0, "match": True})
    query = image(HOSTILE, 7, 4) | {"looks": [[0.5, 0.25], [0.35, -0.1]]}
    metrics = {"average_precision": precision, "first_hit": first_hit, "matches": 2}
    return {"kind": kind, "query": query, "entries": entries, **metrics}


@pytest.fixture(scope="session")
def make_search() -> Callable[[Path], Path]:
    """Write the folder of a search after three epochs."""

    def make(folder: Path) -> Path:
        run = RunFolder(folder)
        run.record({"data": {"kind": "synthetic"}, "space": "reid", "epochs": EPOCHS, "seed": 0}, "search")
        history = []
        for epoch in range(EPOCHS):
            normal, reduce = torch.randn(2, 14, 7)
            genotype = derive(normal, reduce, "reid")
            history.append(
                {
                    "epoch": epoch + 1,
                    "omega_loss": 3.0 - epoch,
                    "alpha_loss": 3.5 - epoch,
                    "omega_learning_rate": 0.1 / (epoch + 1),
                    "alpha_learning_rate": 0.02,
                    "entropy_normal": 1.9,
                    "entropy_reduce": 1.8,
                    "alpha_normal": normal.tolist(),
                    "alpha_reduce": reduce.tolist(),
                    "genotype": json.loads(genotype.to_json()),
                    "seconds": 61.0,
                }
            )
        genotype.save(run.genotype)
        write_json(run.history, history)
        return run.path

    return make


@pytest.fixture(scope="session")
def make_training() -> Callable[..., Path]:
    """Write the folder of a finished training; keywords replace fields of its config."""

    def make(folder: Path, mAP: float = 0.4, **config: Any) -> Path:
        run = RunFolder(folder)
        values = {"data": {"kind": "synthetic", "height": 24}, "network": HOSTILE, "epochs": 2, "seed": 0}
        run.record(values | config, "train")
        rates = {"cross_entropy": 1.5, "triplet": 0.5, "learning_rate": 0.0035, "seconds": 5.0}
        write_json(run.history, [{"epoch": epoch, "loss": 1 / epoch, **rates} for epoch in (1, 2)])
        retrieval = {"rank1": 0.5, "rank5": 0.6, "rank10": 0.7, "mAP": mAP, "mAP_trapezoid": 0.3, "mINP": 0.2}
        stage = {"params_M": 0.1, "flops_G": 0.01, "activation_MB": 1.0}
        size = {"height": 24, "width": 12, "num_classes": 6}
        metrics = {
            "network": HOSTILE,
            **retrieval,
            "num_query": 4,
            "num_valid": 3,
            "chance": {"rank1": 0.1, "mAP": 0.1},
            "untrained": retrieval,
            "params_M": 0.1,
            "flops_G": 0.01,
            "costs": {**size, **stage, "stages": [{"name": "head", **stage}, {"name": "block1", **stage}]},
        }
        write_json(run.metrics, metrics)
        GENOTYPES["autoreid_retrieval"].save(run.genotype)
        lists = [ranked("best", 1.0, 1), ranked("typical", 0.4, 3), ranked("worst", 0.01, 57)]
        record = {"cmc": [0.5, 0.6, 0.7], "average_precision": [1.0, 0.4, 0.01, None], "lists": lists}
        write_json(run.retrieval, record)
        return run.path

    return make


@pytest.fixture(scope="session")
def demo(
    make_search: Callable[..., Path],
    make_training: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The report of a folder of runs such as `demo` writes."""
    folder = tmp_path_factory.mktemp("demo")
    make_search(folder / "search")
    make_training(folder / "searched")
    make_training(folder / "zz $resnet$ <b>", mAP=0.3)
    return write_report(folder)


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write pages without the files of their figures, which take longer."""
    monkeypatch.setattr(Drawing, "save", lambda drawing, folder, name: None)
