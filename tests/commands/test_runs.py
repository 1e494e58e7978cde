"""`search` and `train`: use of the data, contents of run folders; `derive` and `eval`."""

import csv
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import autoreid_fast
import autoreid_fast.search.run as search_engine
from autoreid_fast.cli import main
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.data.synthetic import SyntheticConfig, generate
from autoreid_fast.nas.derivation import alpha_entropy, derive
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.report.run_view import read_run
from autoreid_fast.runs.checkpoint import save_checkpoint

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


def test_eval_on_another_data_set(
    trained: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The features of the training's data set are kept."""
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(trained, run)
    generate(other, SyntheticConfig(train_identities=2, test_identities=5, cameras=2, seed=7))
    for options in ([], ["--rerank"]):
        line = ["eval", "--run", str(run), "--data.root", str(other), "--device", "cpu", *options]
        assert main([*line, "--json", str(tmp_path / f"{len(options)}.json")]) == 0
        capsys.readouterr()
        (features,) = run.glob("features-other-*")
        rank = ["rank", str(features), "--device", "cpu", *options]
        assert main([*rank, "--json", str(tmp_path / "ranked.json")]) == 0
        figures = json.loads((tmp_path / f"{len(options)}.json").read_text())
        assert figures == json.loads((tmp_path / "ranked.json").read_text())
        pattern = "synthetic-other-reranked-*" if options else "synthetic-other-????????"
        (folder,) = (run / "evaluations").glob(pattern)
        assert json.loads((folder / "metrics.json").read_text()) == figures
        lists = json.loads((folder / "retrieval.json").read_text())["lists"]
        assert bool(lists) == (not options)
        assert all((other / ranked["query"]["path"]).is_file() for ranked in lists)
    with (features / "query.csv").open(newline="") as stream:
        paths = {row["path"] for row in csv.DictReader(stream)}
    assert paths == {f"query/{path.name}" for path in (other / "query").iterdir()}
    assert figures["num_query"] == len(paths)
    for name in ("query.npy", "gallery.csv"):
        assert (run / "features" / name).read_bytes() == (trained / "features" / name).read_bytes()
    assert_equals_sorting(json.loads((tmp_path / "0.json").read_text()), features)


def assert_equals_sorting(results: dict[str, float], folder: Path) -> None:
    """Compare metrics with an evaluation by sorting in float64.

    Features of such a small network are so close together that float32 may swap neighbours. The metrics must
    lie between those with every near tie lost and those with every near tie won.
    """
    lost, won = (evaluate_by_sorting(folder, tie) for tie in (-1e-6, 1e-6))
    for name in won:
        assert lost[name] - 1e-6 <= results[name] <= won[name] + 1e-6, name


def evaluate_by_sorting(folder: Path, nearer: float) -> dict[str, float]:
    """CMC, both kinds of mAP, and mINP of a folder of features, by sorting and plain loops.

    The squared distance to images of the query's identity is reduced by ``nearer``.
    """
    features = {split: np.load(folder / f"{split}.npy").astype(np.float64) for split in ("query", "gallery")}
    labels = {}
    for split in ("query", "gallery"):
        with (folder / f"{split}.csv").open(newline="") as stream:
            labels[split] = [(int(row["pid"]), int(row["camera"])) for row in csv.DictReader(stream)]
    per_query = []
    for feature, (pid, camera) in zip(features["query"], labels["query"], strict=True):
        same = np.array([entry[0] == pid for entry in labels["gallery"]])
        distances = ((features["gallery"] - feature) ** 2).sum(axis=1) - nearer * same
        order = np.argsort(distances, kind="stable")
        entries = [labels["gallery"][index] for index in order]
        valid = [entry for entry in entries if entry[0] != -1 and entry != (pid, camera)]
        hits = [rank for rank, entry in enumerate(valid, start=1) if entry[0] == pid]
        if hits:
            precision = [(n + 1) / rank for n, rank in enumerate(hits)]
            before = [n / (rank - 1) if rank > 1 else 1.0 for n, rank in enumerate(hits)]
            trapezoid = (np.array(precision) + before) / 2
            per_query.append((hits[0], np.mean(precision), trapezoid.mean(), len(hits) / hits[-1]))
    first, precision, trapezoid, penalty = np.array(per_query).T
    cmc = {f"rank{rank}": float((first <= rank).mean()) for rank in (1, 5, 10)}
    means = {"mAP": precision.mean(), "mAP_trapezoid": trapezoid.mean(), "mINP": penalty.mean()}
    return cmc | means | {"num_query": len(features["query"]), "num_valid": len(per_query)}


def test_eval_of_saved_features_equals_the_runs_metrics_and_sorting(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    assert main(["eval", "--features", str(trained / "features"), "--json", str(out)]) == 0
    assert "rank-1" in capsys.readouterr().out
    results = json.loads(out.read_text())
    assert_equals_sorting(results, trained / "features")
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {name: metrics[name] for name in METRICS} == {name: results[name] for name in METRICS}
    with (trained / "features" / "gallery.csv").open(newline="") as stream:
        pids = [int(row["pid"]) for row in csv.DictReader(stream)]
    assert {-1, 0} < set(pids)  # junk and distractors are included


def test_eval_of_a_run_extracts_the_same_features(trained: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "features", tmp_path / "figures.json"
    line = ["eval", "--run", str(trained), "--features", str(folder), "--json", str(out), "--device", "cpu"]
    assert main(line) == 0
    for name in ("query.npy", "gallery.npy", "query.csv", "gallery.csv"):
        assert (folder / name).read_bytes() == (trained / "features" / name).read_bytes()
    metrics = json.loads((trained / "metrics.json").read_text())
    figures = json.loads(out.read_text())
    assert {name: figures[name] for name in METRICS} == {name: metrics[name] for name in METRICS}


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


def test_invalid_features_are_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invalid = tmp_path / "features"
    query = np.load(trained / "features" / "query.npy")
    not_a_number = query.copy()
    not_a_number[3, 0] = np.nan
    table = (trained / "features" / "query.csv").read_text().splitlines()
    for name, content, message in [
        ("query.npy", None, "query.npy: no such file"),
        ("gallery.csv", None, "gallery.csv: cannot be read"),
        ("query.npy", b"\x93NUMPY rubbish", "the features of query cannot be read"),
        ("query.npy", query[:-1], "query.csv has 9 rows"),
        ("query.npy", not_a_number, "row 3"),
        ("query.csv", "\n".join(table[:-1]), "query.csv has 8 rows"),
        ("query.csv", "\n".join(["a,b,c", *table[1:]]), "query.csv: needs a header line"),
        ("query.csv", "\n".join([table[0], "x.jpg,,1", *table[2:]]), "query.csv, line 2: pid is"),
    ]:
        shutil.rmtree(invalid, ignore_errors=True)
        shutil.copytree(trained / "features", invalid)
        (invalid / name).unlink()
        if isinstance(content, np.ndarray):
            np.save(invalid / name, content)
        elif isinstance(content, bytes):
            (invalid / name).write_bytes(content)
        elif content is not None:
            (invalid / name).write_text(content + "\n")
        assert main(["eval", "--features", str(invalid)]) == 2, name
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error


def test_a_checkpoint_of_another_network_is_an_error(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("channels: 4\n", "channels: 5\n"))
    for line, message in (
        (["eval", "--run", str(run)], "last.pt: does not fit the architecture in"),
        (["train", "--resume", "--run", str(run)], "last.pt: does not fit this run's model"),
    ):
        assert main(line) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


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


def test_evaluations_of_one_run_do_not_overwrite_each_other(trained: Path, tmp_path: Path) -> None:
    """Folders of one name, another size, other parameters of re-ranking, another checkpoint."""
    run = tmp_path / "run"
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("evaluations", "report"))
    for number, site in enumerate(("a", "b")):
        people = SyntheticConfig(train_identities=2, test_identities=3 + number, cameras=2, seed=number)
        generate(tmp_path / site / "images", people)
    line = ["eval", "--device", "cpu", "--run", str(run)]
    evaluations = [
        [*line, "--data.root", str(tmp_path / "a" / "images")],
        [*line, "--data.root", str(tmp_path / "b" / "images")],
        [*line, "--data.root", str(tmp_path / "b" / "images"), "--data.height", "96"],
        [*line, "--rerank"],
        [*line, "--rerank", "--k1", "3"],
        ["eval", "--device", "cpu", "--run", str(run / "checkpoints" / "best.pt")],
    ]
    for words in [*evaluations, evaluations[0]]:
        assert main(words) == 0
    configs = [yaml.safe_load(path.read_text()) for path in run.glob("evaluations/*/config.yaml")]
    assert len(configs) == len(evaluations) == len({json.dumps(config, sort_keys=True) for config in configs})
    assert len(list(run.glob("features-*"))) == 4
    for name in ("query.npy", "gallery.npy"):
        assert (run / "features" / name).read_bytes() == (trained / "features" / name).read_bytes()


def test_the_best_checkpoint_is_evaluated_exported_and_loaded(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    best = run / "checkpoints" / "best.pt"
    state = torch.load(run / "checkpoints" / "previous.pt", weights_only=True)
    best.unlink()
    save_checkpoint(best, state)  # so that it is not the last one
    assert main(["eval", "--run", str(best), "--json", str(tmp_path / "best.json"), "--device", "cpu"]) == 0
    best_metrics = json.loads((tmp_path / "best.json").read_text())
    last_metrics = json.loads((run / "metrics.json").read_text())
    assert best_metrics["mAP"] == state["history"][-1]["mAP"] != last_metrics["mAP"]
    assert main(["export", str(best), "--format", "safetensors"]) == 0
    exported = autoreid_fast.load(run / "export" / "model-best.safetensors", "cpu")
    loaded = autoreid_fast.load(best, "cpu")
    for network in (exported, loaded):
        assert network.card.metrics is None  # metrics.json has those of the last checkpoint
        for name, value in network.network.network.state_dict().items():
            assert torch.equal(value, state["model"][name]), name


def test_a_swapped_genotype_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    genotype = json.loads((run / "genotype.json").read_text())
    nodes = genotype["normal"]
    nodes[0] = nodes[0][::-1] if nodes[0][0] != nodes[0][1] else nodes[1]
    (run / "genotype.json").write_text(json.dumps(genotype))
    for line in (["eval", "--run"], ["train", "--resume", "--run"], ["export"]):
        assert main([*line, str(run)]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "genotype.json: not the genotype" in error or "does not fit" in error, error


@contextmanager
def double_by_default() -> Iterator[None]:
    """Another default dtype than that of images."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_default_dtype_changes_no_run(trained: Path, train_line: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with double_by_default():
        assert main([*train_line, "--epochs", "1", "--run", str(run)]) == 0
    states = [torch.load(path / "checkpoints" / "last.pt") for path in (run, trained)]
    dtypes, expected = ({name: value.dtype for name, value in state["model"].items()} for state in states)
    assert dtypes == expected
    assert states[0]["history"][0]["cross_entropy"] == states[1]["history"][0]["cross_entropy"]


def test_the_default_dtype_changes_no_features(trained: Path, people: Path, tmp_path: Path) -> None:
    folder, model, scores = tmp_path / "features", tmp_path / "model.safetensors", tmp_path / "scores.json"
    first = people / (trained / "features" / "query.csv").read_text().splitlines()[1].split(",")[0]
    with double_by_default():
        assert main(["extract", "--run", str(trained), "--features", str(folder)]) == 0
        assert main(["rank", str(folder), "--json", str(scores)]) == 0
        assert main(["export", str(trained), "--format", "safetensors", "--out", str(model)]) == 0
        embedded = [autoreid_fast.load(source, "cpu").embed(first) for source in (trained, model)]
    expected = np.load(trained / "features" / "query.npy")
    np.testing.assert_array_equal(np.load(folder / "query.npy"), expected)
    assert json.loads(scores.read_text())["mAP"] == json.loads((trained / "metrics.json").read_text())["mAP"]
    for features in embedded:
        np.testing.assert_allclose(features.numpy(), expected[:1], atol=1e-6)


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
