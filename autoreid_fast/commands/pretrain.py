"""`pretrain`: train a network to classify images; `train --pretrained` starts from its weights."""

from autoreid_fast.commands.options import show_result, start_or_resume
from autoreid_fast.distributed.group import joined_processes, on_main
from autoreid_fast.training import pretrain
from autoreid_fast.training.config import PretrainConfig


def run_pretrain(arguments: list[str]) -> int:
    """Pre-train a network on ImageNet or other classified images."""
    with joined_processes():
        config, run = on_main(lambda: start_or_resume("pretrain", PretrainConfig, arguments))
        with run.session():
            metrics = pretrain(config, run)
        accuracy = f"top-1 {100 * metrics['top1']:.2f} %, top-5 {100 * metrics['top5']:.2f} %"
        on_main(lambda: show_result(f"{accuracy}\n{run.weights}"))
    return 0
