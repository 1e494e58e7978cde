"""`eval`: evaluate a trained network. `extract`: write its features. `rank`: evaluate features on disk."""

import re
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, create_model

from autoreid_fast.commands.options import form_of, option, parse, show
from autoreid_fast.configs import from_values
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.devices import DeviceName, choose_device
from autoreid_fast.distributed.group import joined_processes, on_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.evaluator import Evaluator, rank_folder
from autoreid_fast.evaluation.metrics import Evaluation
from autoreid_fast.evaluation.protocol import Metric
from autoreid_fast.evaluation.reranking import RerankConfig
from autoreid_fast.files import require_writable, write_json
from autoreid_fast.report.draw import draw_report
from autoreid_fast.report.run_view import EVALUATIONS
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.config import TrainConfig
from autoreid_fast.training.network import load_trained

_DEVICE = (DeviceName, Field("auto", description="Where to run; auto takes CUDA where there is one."))
_JSON = (
    Annotated[Path | None, tyro.conf.arg(name="json")],
    Field(None, description="Write the figures there as well."),
)
_RERANK = (bool, Field(False, description="Re-rank by k-reciprocal neighbours (Zhong et al., CVPR 2017)."))
_K_RECIPROCAL = (
    Annotated[RerankConfig, tyro.conf.arg(name="")],
    Field(default_factory=RerankConfig, description="The numbers of --rerank."),
)


def run_eval(arguments: list[str]) -> int:
    """Evaluate a trained network on its own data set or another, or features that it left."""
    form = {"rerank": _RERANK, "k_reciprocal": _K_RECIPROCAL, "json_file": _JSON}
    run, config, options = _run_options("eval", "Evaluate a trained network.", arguments, form)
    rerank = options.k_reciprocal if options.rerank else None
    if run is not None and config is not None:
        with joined_processes():
            _evaluate(run, config, options, rerank)
    elif options.features is not None:
        with joined_processes():
            evaluation = rank_folder(options.features, rerank=rerank, device=choose_device(options.device))
            on_main(lambda: _report(evaluation, options))
    else:
        raise AutoReIDError("eval needs --run (of a training) or --features (a folder)")
    return 0


def run_extract(arguments: list[str]) -> int:
    """Write the query's and gallery's features of a trained network."""
    run, config, options = _run_options("extract", "Write a trained network's features.", arguments, {})
    if run is None or config is None:
        raise AutoReIDError("extract needs --run, the run folder of a training")
    folder = _features_folder(run, config, options)
    with joined_processes():
        evaluator, model = _network(run, config, options)
        evaluator.features(model, folder)
        on_main(lambda: show(str(folder)))
    return 0


def run_rank(arguments: list[str]) -> int:
    """Evaluate features on disk; under torchrun the processes share the gallery."""
    fields: dict[str, Any] = {
        "features": (
            Annotated[Path, tyro.conf.Positional],
            Field(
                description="Folder with query.npy and gallery.npy (or .safetensors; float32 or float16, "
                "a row an image) and query.csv and gallery.csv (columns pid, camera, path)."
            ),
        ),
        "metric": (Metric, Field("euclidean", description="What to compare by.")),
        "rerank": _RERANK,
        "k_reciprocal": _K_RECIPROCAL,
        "json_file": _JSON,
        "device": _DEVICE,
    }
    form = create_model("Options", __doc__="Evaluate features on disk, whatever tool made them.", **fields)
    options: Any = parse(form, "rank", arguments)
    rerank = options.k_reciprocal if options.rerank else None
    with joined_processes():
        device = choose_device(options.device)
        evaluation = rank_folder(options.features, options.metric, rerank, device)
        on_main(lambda: _report(evaluation, options))
    return 0


def _run_options(
    command: str, about: str, arguments: list[str], more: dict[str, Any]
) -> tuple[RunFolder | None, TrainConfig | None, Any]:
    """Parse a command that works on a training's run, whose own config is where the defaults come from."""
    folder = option(arguments, "run")
    run = RunFolder(folder) if folder else None
    config = from_values(TrainConfig, run.recorded("train"), str(run.config)) if run else None
    data = form_of(config.data if config else DataConfig(), arguments, "data.")
    fields: dict[str, Any] = {
        "run": (Path | None, Field(None, description="Run folder of a training.")),
        "features": (
            Path | None,
            Field(
                None,
                description="Folder of the features; default: RUN/features, for another data set than the "
                "run's own RUN/features-<its folder>. eval takes it without --run too.",
            ),
        ),
        **more,
        "device": _DEVICE,
        "data": (type(data), Field(data, description="The data set; default: the run's own.")),
    }
    options = parse(create_model("Options", __doc__=about, **fields), command, arguments)
    chosen = from_values(DataConfig, options.data.model_dump(), command)
    return run, config, options.model_copy(update={"data": chosen})


def _network(run: RunFolder, config: TrainConfig, options: Any) -> tuple[Evaluator, Any]:
    device = choose_device(options.device)
    model = load_trained(config, run).to(device)
    return Evaluator(load_dataset(options.data), options.data, device), model


def _features_folder(run: RunFolder, config: TrainConfig, options: Any) -> Path:
    """Where features go by default: those of another data set never take the place of the run's own.

    Raises AutoReIDError where nothing can be written there, which is known before they are extracted.
    """
    require_writable(options.features or run.path)
    if options.features is not None:
        return Path(options.features)
    own = options.data.model_copy(update={"cache_dir": config.data.cache_dir}) == config.data
    return run.features if own else run.path / f"features-{options.data.root.name}"


def _evaluate(run: RunFolder, config: TrainConfig, options: Any, rerank: RerankConfig | None) -> None:
    """Evaluate the network, show the figures, and leave them with a report in a folder of the run's."""
    features = _features_folder(run, config, options)
    evaluator, model = _network(run, config, options)
    name = f"{evaluator.name}-{options.data.root.name}" + ("-reranked" if rerank else "")
    folder = RunFolder(run.path / EVALUATIONS / re.sub(r"[^\w.-]+", "_", name))
    evaluation = evaluator(model, features, folder.retrieval, rerank)

    def leave() -> None:
        _report(evaluation, options)
        numbers = rerank.model_dump() if rerank else None
        folder.record({"run": run.path, "data": options.data.model_dump(), "rerank": numbers}, "eval")
        write_json(folder.metrics, evaluation.to_dict())
        draw_report(folder.path)

    on_main(leave)


def _report(evaluation: Evaluation, options: Any) -> None:
    if options.json_file is not None:
        write_json(options.json_file, evaluation.to_dict())
    show(str(evaluation))
