"""`search` and `train`: use of the data and contents of run folders; `derive`."""

import json
import math
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import autoreid_fast.search.run as search_engine
from autoreid_fast.cli import main
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.nas.derivation import alpha_entropy, derive
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.report.run_view import read_run

METRICS = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP", "num_query", "num_valid", "chance")


def history(run: Path) -> list[dict[str, Any]]:
    return list(json.loads((run / "history.json").read_text()))


def test_files_of_a_run_folder(searched: Path, trained: Path) -> None:
    common = {"config.yaml", "environment.json", "log.txt", "history.json", "events", "checkpoints", "report"}
    common |= {".lock"}
    assert {path.name for path in searched.iterdir()} == common | {"genotype.json", "metrics.json"}
    results = {"genotype.json", "metrics.json", "untrained.json", "features", "retrieval.json"}
    assert {path.name for path in trained.iterdir()} - {"evaluations"} == common | results
    assert (trained / "genotype.json").read_text() == (searched / "genotype.json").read_text()
    for run in (searched, trained):
        assert any((run / "events").iterdir())
        assert (run / "log.txt").read_text().count("epoch   ") == 3
        assert json.loads((run / "environment.json").read_text())["packages"]["torch"] == version("torch")


def tensorboard_counts(run: Path) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Numbers of scalars, histograms and images in a run's events, by their names."""
    events = EventAccumulator(str(run / "events"), {"scalars": 0, "histograms": 0, "images": 0}).Reload()
    readers = {"scalars": events.Scalars, "histograms": events.Histograms, "images": events.Images}
    scalars, histograms, images = (
        {name: len(read(name)) for name in events.Tags()[kind]} for kind, read in readers.items()
    )
    return scalars, histograms, images


def test_tensorboard_has_scalars_alpha_cells_and_ranked_lists(
    searched: Path, trained: Path, train_line: list[str], tmp_path: Path
) -> None:
    scalars, histograms, images = tensorboard_counts(searched)
    for name in ("omega_loss", "alpha_loss", "omega_learning_rate", "entropy_normal", "memory_GiB"):
        assert scalars[name] == 3
    assert histograms == {"alpha_normal": 3, "alpha_reduce": 3}
    assert 1 <= images["cells"] <= 3
    scalars, _, images = tensorboard_counts(trained)
    assert scalars["loss"] == scalars["learning_rate"] == scalars["mAP"] == images["ranked lists"] == 3
    without_evaluations = [
        *train_line,
        "--epochs",
        "1",
        "--evaluate-every",
        "0",
        "--run",
        str(tmp_path / "run"),
    ]
    assert main(without_evaluations) == 0
    scalars, _, images = tensorboard_counts(tmp_path / "run")
    assert scalars["mAP"] == scalars["rank1"] == images["ranked lists"] == 1  # from the evaluation at the end


def test_a_search_records_alpha_entropy_genotype_and_learning_rates(searched: Path) -> None:
    records = history(searched)
    assert [record["epoch"] for record in records] == [1, 2, 3]
    cosine = [0.001 + 0.099 * (1 + math.cos(math.pi * epoch / 3)) / 2 for epoch in range(3)]
    assert [record["omega_learning_rate"] for record in records] == pytest.approx(cosine)
    assert [record["alpha_learning_rate"] for record in records] == pytest.approx([0.02, 0.002, 0.0002])
    state = torch.load(searched / "checkpoints" / "last.pt", weights_only=True)
    assert state["omega_optimizer"]["param_groups"][0]["lr"] == records[-1]["omega_learning_rate"]
    assert state["alpha_optimizer"]["param_groups"][0]["lr"] == records[-1]["alpha_learning_rate"]
    for record in records:
        alphas = [torch.tensor(record[name]) for name in ("alpha_normal", "alpha_reduce")]
        assert record["entropy_normal"] == pytest.approx(alpha_entropy(alphas[0]), abs=1e-6)
        assert record["entropy_reduce"] == pytest.approx(alpha_entropy(alphas[1]), abs=1e-6)
        assert Genotype.from_json(json.dumps(record["genotype"])) == derive(*alphas, "reid")
    assert torch.equal(torch.tensor(records[-1]["alpha_normal"]), state["model"]["backbone.alpha_normal"])
    assert json.loads((searched / "genotype.json").read_text()) == records[-1]["genotype"]


def test_a_search_splits_every_identity_between_omega_and_alpha(
    search_line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves: list[dict[str, Any]] = []

    class Spy(IdentitySampler):
        def __init__(self, labels: Any, identities: int, images: int, seed: int, subset: Any) -> None:
            super().__init__(labels, identities, images, seed, subset)
            halves.append({"labels": labels.numpy(), "subset": set(subset.tolist()), "images": set()})

        def epoch(self, epoch: int) -> Any:
            half = halves[0 if self.seed % 2 == 0 else 1]
            for batch in super().epoch(epoch):
                half["images"] |= set(batch.tolist())
                yield batch

    monkeypatch.setattr(search_engine, "IdentitySampler", Spy)
    assert main([*search_line, "--epochs", "1", "--run", str(tmp_path / "run")]) == 0
    omega, alpha = halves
    all_images = set(range(len(omega["labels"])))
    assert omega["subset"] | alpha["subset"] == all_images
    assert not omega["subset"] & alpha["subset"]
    assert abs(len(omega["subset"]) - len(alpha["subset"])) <= 1
    for half in (omega, alpha):
        assert half["images"] <= half["subset"]
        assert set(half["labels"][list(half["subset"])]) == set(omega["labels"]) == set(range(6))


@pytest.mark.parametrize(
    "options",
    [["--algorithm", "gdas"], ["--order", "2", "--precision", "bfloat16"]],
    ids=["gdas", "second order"],
)
def test_other_searches_write_a_genotype(options: list[str], search_line: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main([*search_line, *options, "--epochs", "1", "--run", str(run)]) == 0
    (record,) = history(run)
    assert math.isfinite(record["omega_loss"])
    assert json.loads((run / "genotype.json").read_text()) == record["genotype"]


def test_derive_of_an_unfinished_search(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = tmp_path / "run"
    shutil.copytree(searched, unfinished)
    (unfinished / "genotype.json").unlink()
    out = tmp_path / "derived.json"
    assert main(["derive", str(unfinished), "--out", str(out)]) == 0
    assert Genotype.from_json(capsys.readouterr().out) == Genotype.load(searched / "genotype.json")
    assert Genotype.load(out) == Genotype.load(searched / "genotype.json")
    shutil.rmtree(unfinished / "checkpoints")
    for name in ("history.json", "metrics.json"):
        (unfinished / name).unlink()
    assert main(["derive", str(unfinished)]) == 2
    assert "has not finished its first epoch" in capsys.readouterr().err


def test_metrics_include_the_untrained_network_and_chance(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    assert set(METRICS) <= set(metrics)
    assert set(METRICS) <= set(metrics["untrained"])
    assert metrics["chance"] == metrics["untrained"]["chance"]
    assert metrics["mAP"] != metrics["untrained"]["mAP"]
    records = history(trained)
    assert [record["learning_rate"] for record in records] == pytest.approx([3.5e-3, 3.5e-4, 3.5e-5])
    assert (records[-1]["rank1"], records[-1]["mAP"]) == (metrics["rank1"], metrics["mAP"])
    expected = [0.5 * record["cross_entropy"] + 0.5 * record["triplet"] for record in records]
    assert [record["loss"] for record in records] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        ("--tail", "pcb", "--objective.loss", "ce", "--last-stride", "1"),  # PCB
        ("--objective.loss", "triplet"),  # TriNet
    ],
)
def test_rows_of_table_3_train_and_evaluate(
    options: tuple[str, ...], data: list[str], tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "figures.json"
    line = ["train", *data, "--network", "resnet18", "--channels", "2", "--epochs", "1", *options]
    assert main([*line, "--batch.identities", "3", "--run", str(run)]) == 0
    assert main(["eval", "--run", str(run), "--json", str(out), "--device", "cpu"]) == 0
    metrics, figures = (json.loads(path.read_text()) for path in (run / "metrics.json", out))
    assert {name: figures[name] for name in METRICS} == {name: metrics[name] for name in METRICS}
    assert metrics["mAP"] != metrics["untrained"]["mAP"]
    dim = np.load(run / "features" / "query.npy").shape[1]
    assert dim == (6 * 256 if "pcb" in options else 16)
    assert (history(run)[0]["cross_entropy"] > 0) == ("pcb" in options)


@pytest.fixture
def pretrained(data: list[str], tmp_path: Path) -> tuple[Path, Path]:
    """A file of initial weights, and the run folder of a training that began with them."""
    from autoreid_fast.models.backbones.resnet import ResNet

    weights, run = tmp_path / "resnet.pt", tmp_path / "run"
    torch.save(ResNet(18, width=2).state_dict(), weights)
    line = ["train", *data, "--network", "resnet18", "--channels", "2", "--epochs", "1"]
    line += ["--batch.identities", "3", "--pretrained", str(weights), "--run", str(run)]
    assert main(line) == 0
    return weights, run


def test_a_trained_resnet_does_not_need_its_initial_weights(
    data: list[str], pretrained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    weights, run = pretrained
    weights.unlink()
    assert main(["eval", "--run", str(run), "--device", "cpu"]) == 0
    capsys.readouterr()
    from_missing = ["train", *data, "--network", "darts_v2", "--channels", "4", "--pretrained", str(weights)]
    assert main(from_missing) == 2
    assert f"no weights at {weights}" in capsys.readouterr().err


def test_a_swapped_genotype_of_a_search_is_refused(
    searched: Path, tmp_path: Path, train_line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "search"
    shutil.copytree(searched, run)
    found = Genotype.load(run / "genotype.json")
    Genotype(found.normal, (found.reduce[0][::-1], *found.reduce[1:])).save(run / "genotype.json")
    assert main([*train_line[:-1], str(run), "--run", str(tmp_path / "train")]) == 2
    refusal = f"{run}/genotype.json: not the genotype that metrics.json records; restore the file"
    assert refusal in capsys.readouterr().err
    assert not (tmp_path / "train").exists()
    assert read_run(run).genotype is None
    (run / "metrics.json").unlink()  # as in a folder that holds nothing but a genotype
    assert read_run(run).genotype is not None


def test_a_run_resumes_without_its_pretrained_weights(
    pretrained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of an earlier version did not keep the scores of its untrained network."""
    weights, run = pretrained
    metrics = json.loads((run / "metrics.json").read_text())
    untrained = metrics.pop("untrained")
    resume = ["train", "--resume", "--run", str(run)]

    def resumed() -> dict[str, Any]:
        (run / "metrics.json").unlink()
        assert main(resume) == 0
        return dict(json.loads((run / "metrics.json").read_text()))

    (run / "untrained.json").unlink()
    assert resumed() == metrics | {"untrained": untrained}  # scored again
    weights.unlink()
    assert resumed() == metrics | {"untrained": untrained}
    (run / "untrained.json").unlink()
    capsys.readouterr()
    assert resumed() == metrics
    assert "resnet.pt: gone; the run goes on from its checkpoint" in capsys.readouterr().err
