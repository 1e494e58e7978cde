"""`train`: train a network and evaluate it. `eval`: evaluate a run, or features."""

from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from autoreid_fast.commands.options import option, parse, show, start_or_resume
from autoreid_fast.configs import from_values
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.engine.evaluator import Evaluator, rank_features
from autoreid_fast.engine.features import load_features, save_features
from autoreid_fast.engine.metrics import Evaluation
from autoreid_fast.engine.run_folder import RunFolder
from autoreid_fast.engine.setup import DeviceName, choose_device
from autoreid_fast.engine.train import TrainConfig, load_trained, train
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.report.results import results_table


def run_train(arguments: list[str]) -> int:
    """Train a searched or a fixed network and evaluate it."""
    config, run = start_or_resume("train", TrainConfig, arguments)
    with run.logging():
        metrics = train(config, run)
    show(results_table({config.network: metrics}))
    return 0


def run_eval(arguments: list[str]) -> int:
    """Evaluate a trained network, on its own data set or another, or features on disk."""
    folder = option(arguments, "run")
    run = RunFolder(folder) if folder else None
    config = from_values(TrainConfig, run.recorded("train"), str(run.config)) if run else None
    fields: dict[str, Any] = {
        "run": (Path | None, Field(None, description="Run folder of a training.")),
        "features": (
            Path | None,
            Field(
                None,
                description="With --run: where the features are written (default: RUN/features). "
                "Alone: a folder with query.npy, query.csv, gallery.npy and gallery.csv to evaluate.",
            ),
        ),
        "json": (Path | None, Field(None, description="Write the figures there as well.")),
        "device": (
            DeviceName,
            Field("auto", description="Where to run; auto takes CUDA where there is one."),
        ),
        "data": (
            DataConfig,
            Field(
                config.data if config else DataConfig(), description="The data set; default: the run's own."
            ),
        ),
    }
    form = create_model("Options", __doc__="Evaluate a trained network, or features on disk.", **fields)
    options: Any = parse(form, "eval", arguments)
    if run is not None and config is not None:
        evaluation = _evaluate_run(run, config, options)
    elif options.features is not None:
        evaluation = rank_features(
            load_features(options.features, "query"), load_features(options.features, "gallery")
        )
    else:
        raise AutoReIDError("eval needs --run (of a training) or --features (a folder)")
    if options.json is not None:
        write_json(options.json, evaluation.to_dict())
    show(str(evaluation))
    return 0


def _evaluate_run(run: RunFolder, config: TrainConfig, options: Any) -> Evaluation:
    device = choose_device(options.device)
    model = load_trained(config, run).to(device)
    evaluator = Evaluator(load_dataset(options.data), options.data, device)
    query, gallery = evaluator.features(model)
    folder = options.features or run.features
    save_features(folder, "query", query)
    save_features(folder, "gallery", gallery)
    return rank_features(query, gallery)
