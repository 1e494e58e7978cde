"""`eval` and `extract`: scores, features on disk, checkpoints, other data sets and files that do not fit."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import autoreid_fast
from autoreid_fast.cli import main
from autoreid_fast.data.synthetic import SyntheticConfig, generate
from autoreid_fast.runs.checkpoint import save_checkpoint

METRICS = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP", "num_query", "num_valid", "chance")


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
