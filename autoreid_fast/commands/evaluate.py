"""`eval`: evaluate a trained network. `extract`: write its features. `rank`: evaluate features on disk."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import Field, SerializeAsAny

from autoreid_fast.commands.forms import option
from autoreid_fast.commands.options import parse, parse_config, run_as_option, show
from autoreid_fast.configs import from_values
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.copies import copies_of
from autoreid_fast.data.dataset import DISTRACTOR, Dataset, identities
from autoreid_fast.data.load import load_dataset, read_dataset
from autoreid_fast.devices import DeviceName, choose_device
from autoreid_fast.distributed.group import joined_processes, on_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.evaluator import Evaluator, evaluate_folder
from autoreid_fast.evaluation.metrics import Evaluation
from autoreid_fast.evaluation.protocol import Metric
from autoreid_fast.evaluation.reranking import RerankConfig
from autoreid_fast.files import require_file, require_writable, write_json
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.report.draw import draw_report
from autoreid_fast.report.run_view import EVALUATIONS
from autoreid_fast.runs.folder import RunFolder, plain
from autoreid_fast.schema import Config
from autoreid_fast.training.config import TrainConfig
from autoreid_fast.training.network import load_trained


class DeviceOptions(Config):
    """Where to run."""

    device: DeviceName = Field(
        "auto", description="Device to run on: auto (CUDA if available), cpu, cuda or cuda:N."
    )


class RankingOptions(DeviceOptions):
    """How to rank, and where to write the results."""

    rerank: bool = Field(False, description="Re-rank by k-reciprocal neighbours (Zhong et al., CVPR 2017).")
    k_reciprocal: Annotated[RerankConfig, tyro.conf.arg(name="")] = Field(
        RerankConfig(), description="Parameters of --rerank."
    )
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = Field(
        None, description="JSON file to write the results to."
    )

    def reranking(self) -> RerankConfig | None:
        """The parameters of re-ranking, or None without --rerank."""
        return self.k_reciprocal if self.rerank else None

    def check_output(self) -> None:
        """Check that the JSON file can be written, before the work starts."""
        if self.json_file is not None:
            require_file(self.json_file)

    def report(self, evaluation: Evaluation) -> None:
        """Print the results, and write them to the JSON file if one is given."""
        if self.json_file is not None:
            write_json(self.json_file, evaluation.to_dict())
        show(str(evaluation))


class NetworkOptions(DeviceOptions):
    """A trained network and the data set to run it on."""

    run: Path | None = Field(
        None,
        description="Run folder of a training, or one of its checkpoints: RUN/checkpoints/best.pt; the first "
        "argument if it has no name.",
    )
    features: Path | None = Field(
        None,
        description="Folder of the features; default: RUN/features, or for another data set than the run's "
        "RUN/features-<name of its folder>-<hash of its settings>. eval needs no --run if this is given.",
    )
    data: SerializeAsAny[DataConfig] = Field(
        default_factory=DataConfig, description="Data set; default: the run's."
    )


class ExtractOptions(NetworkOptions):
    """Write a trained network's features of the query and gallery images."""


class EvalOptions(RankingOptions, NetworkOptions):
    """Evaluate a trained network, on its own data set or another."""


class RankOptions(RankingOptions):
    """Evaluate features on disk, written by this or another tool."""

    features: Annotated[Path, tyro.conf.Positional] = Field(
        description="Folder with query.npy and gallery.npy (or .safetensors; float32 or float16, one row per "
        "image) and query.csv and gallery.csv (columns pid, camera, path)."
    )
    metric: Metric = Field("euclidean", description="Distance between features.")


LONGEST_NAME = 150
"""Bytes of a folder's name before the hash; a data set's folder may have a name of 255."""

Trained = tuple[RunFolder, TrainConfig]
"""A run folder of `train` and its config."""
AnyOptions = TypeVar("AnyOptions", bound=NetworkOptions)

logger = logging.getLogger("autoreid_fast")


def run_eval(arguments: list[str]) -> int:
    """Evaluate a trained network, or features on disk."""
    arguments = run_as_option(arguments)
    trained = _trained_run(arguments)
    options = parse_config(EvalOptions(data=_data_of(trained)), "eval", arguments)
    options.check_output()
    if trained is not None:
        options = _to_test_on(trained, options, arguments)
        with joined_processes():
            _evaluate_network(trained, options)
    elif options.features is not None:
        _evaluate_features(options.features, "euclidean", options)
    else:
        raise AutoReIDError("eval needs --run (of a training) or --features (a folder)")
    return 0


def run_extract(arguments: list[str]) -> int:
    """Write a trained network's features of the query and gallery images."""
    arguments = run_as_option(arguments)
    trained = _trained_run(arguments)
    options = parse_config(ExtractOptions(data=_data_of(trained)), "extract", arguments)
    if trained is None:
        raise AutoReIDError("extract needs --run, the run folder of a training")
    options = _to_test_on(trained, options, arguments)
    folder = _features_folder(trained, options)
    with joined_processes():
        evaluator, model = _load(trained, options)
        evaluator.features(model, folder)
        on_main(lambda: show(str(folder)))
    return 0


def run_rank(arguments: list[str]) -> int:
    """Evaluate features on disk; under torchrun, each process ranks a shard of the gallery."""
    options: RankOptions = parse(RankOptions, "rank", arguments)
    options.check_output()
    _evaluate_features(options.features, options.metric, options)
    return 0


def _trained_run(arguments: list[str]) -> Trained | None:
    """The run that --run names; its config has the defaults of other options."""
    folder = option(arguments, "run")
    if folder is None:
        return None
    run = RunFolder.of(folder)
    return run, from_values(TrainConfig, run.recorded("train"), str(run.config))


def _data_of(trained: Trained | None) -> DataConfig:
    return DataConfig() if trained is None else trained[1].data


def _to_test_on(trained: Trained, options: AnyOptions, arguments: list[str]) -> AnyOptions:
    """Test on everybody of another data set than the run's, unless options keep some to train on."""
    own, data = trained[1].data, options.data
    own_root, root = (None if config.root is None else config.root_folder.resolve() for config in (own, data))
    moved = own_root is not None and not own_root.exists() and own.folder_name == data.folder_name
    foreign = data.kind != own.kind or not (own_root == root or moved)
    shares = ("train-share", "train_share", "train-identities", "train_identities")
    if not foreign or any(option(arguments, f"data.{share}") for share in shares):
        return options
    return options.model_copy(update={"data": data.to_test_on()})


def _warn_of_trained_people(trained: Trained, dataset: Dataset) -> None:
    """Log how many people are scored whose images the run was trained on."""
    try:
        own = read_dataset(trained[1].data, ())
    except AutoReIDError:  # it is no longer where it was
        return
    scored = [record for record in (*dataset.query, *dataset.gallery) if record.pid > DISTRACTOR]
    copies = copies_of(dataset, scored, own, own.train)
    people = identities(record for record in scored if record.path in copies)
    if people:
        logger.warning(
            "%s: %d of the people who are scored were trained on, which makes scores too good; "
            "--data.train-share keeps a share of the people out",
            dataset.name,
            len(people),
        )


def _load(trained: Trained, options: NetworkOptions) -> tuple[Evaluator, ReIDNetwork]:
    run, config = trained
    device = choose_device(options.device)
    model = load_trained(config, run).to(device)
    dataset = load_dataset(options.data, ("query", "gallery"))
    if _other_data(trained, options):
        _warn_of_trained_people(trained, dataset)
    return Evaluator(dataset, options.data, device), model


def _features_folder(trained: Trained, options: NetworkOptions) -> Path:
    """Folder to write features to. By default, another data set than the run's has a folder of its own.

    Raises:
        AutoReIDError: the folder cannot be written; raised before any feature is extracted.
    """
    run, _ = trained
    require_writable(options.features or run.path)
    if options.features is not None:
        return options.features
    other_data = _other_data(trained, options)
    names = [run.features.name, *([options.data.folder_name] if other_data else []), *_checkpoint_of(run)]
    return run.path / _folder_name(names, other_data)


def _evaluation_folder(trained: Trained, options: EvalOptions, dataset: str) -> RunFolder:
    """Folder of an evaluation's results, which no other evaluation of the run shares."""
    run, _ = trained
    other = _other_data(trained, options)
    names = [dataset, options.data.folder_name, *_checkpoint_of(run)]
    if options.rerank:
        names.append("reranked")
        other |= _differences(options.k_reciprocal, RerankConfig())
    return RunFolder(run.path / EVALUATIONS / _folder_name(names, other))


def _other_data(trained: Trained, options: NetworkOptions) -> dict[str, Any]:
    """Fields in which the data set is not the run's own."""
    own = trained[1].data
    return _differences(options.data.model_copy(update={"cache_dir": own.cache_dir}), own)


def _differences(config: Config, other: Config) -> dict[str, Any]:
    values, others = plain(config.model_dump()), plain(other.model_dump())
    return {name: value for name, value in values.items() if others.get(name) != value}


def _checkpoint_of(run: RunFolder) -> list[str]:
    return [] if run.chosen is None else [run.chosen.stem]


def _folder_name(names: list[str], other: Mapping[str, Any]) -> str:
    """Join ``names``; a hash of the settings that are not the default ones keeps the results apart."""
    text = re.sub(r"[^\w.-]+", "_", "-".join(names)).encode()[:LONGEST_NAME].decode(errors="ignore")
    if not other:
        return text
    return f"{text}-{hashlib.sha256(json.dumps(other, sort_keys=True).encode()).hexdigest()[:8]}"


def _evaluate_network(trained: Trained, options: EvalOptions) -> None:
    """Evaluate a network; print the results, and write them with a report to a folder in its run."""
    run = trained[0]
    features = _features_folder(trained, options)
    evaluator, model = _load(trained, options)
    rerank = options.reranking()
    folder = _evaluation_folder(trained, options, evaluator.name)
    evaluation = evaluator(model, features, folder.retrieval, rerank)

    def write() -> None:
        options.report(evaluation)
        parameters = rerank.model_dump() if rerank else None
        values = {"run": run.path, "checkpoint": (run.chosen or run.checkpoint).name}
        folder.record({**values, "data": options.data.model_dump(), "rerank": parameters}, "eval")
        write_json(folder.metrics, evaluation.to_dict())
        draw_report(folder.path)

    on_main(write)


def _evaluate_features(folder: Path, metric: Metric, options: RankingOptions) -> None:
    with joined_processes():
        device = choose_device(options.device)
        evaluation = evaluate_folder(folder, metric, options.reranking(), device)
        on_main(lambda: options.report(evaluation))
