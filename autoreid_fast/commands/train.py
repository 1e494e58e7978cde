"""`train`: train a network and evaluate it."""

from autoreid_fast.commands.options import show, start_or_resume
from autoreid_fast.engine.train import TrainConfig, train
from autoreid_fast.report.results import results_table


def run_train(arguments: list[str]) -> int:
    """Train a searched or a fixed network and evaluate it."""
    config, run = start_or_resume("train", TrainConfig, arguments)
    with run.logging():
        metrics = train(config, run)
    show(results_table({config.network: metrics}))
    return 0
