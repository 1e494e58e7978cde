"""`train`: train a network and evaluate it."""

from autoreid_fast.commands.options import show_result, start_or_resume
from autoreid_fast.distributed.group import joined_processes, on_main
from autoreid_fast.report.draw import draw_report
from autoreid_fast.report.tensorboard import watch_training
from autoreid_fast.report.text_tables import results_table
from autoreid_fast.training import train
from autoreid_fast.training.config import TrainConfig


def run_train(arguments: list[str]) -> int:
    """Train a searched or a fixed network and evaluate it."""
    with joined_processes():
        config, run = on_main(lambda: start_or_resume("train", TrainConfig, arguments))
        with run.session():
            metrics = train(config, run, watch_training(run))
            on_main(lambda: draw_report(run.path))
        on_main(lambda: show_result(results_table({config.network: metrics})))
    return 0
