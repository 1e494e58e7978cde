"""The command line: `autoreid-fast COMMAND ...`."""

import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module

from autoreid_fast import __version__
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import UNWRITABLE, cannot_write
from autoreid_fast.plugins import import_plugin, take_imports

# name: (module of autoreid_fast.commands, function in it, help); modules are imported when they are called
COMMANDS = {
    "demo": ("demo", "run_demo", "the whole method on a small synthetic set, in minutes"),
    "search": ("search", "run_search", "search an architecture (Algorithm 1)"),
    "derive": ("search", "run_derive", "the genotype of a search, finished or not"),
    "pretrain": ("pretrain", "run_pretrain", "pre-train a network on ImageNet, or any classified images"),
    "train": ("train", "run_train", "train a searched or a fixed network and evaluate it"),
    "eval": ("evaluate", "run_eval", "evaluate a trained network, on its own data set or another"),
    "extract": ("evaluate", "run_extract", "write a trained network's features to disk"),
    "rank": ("evaluate", "run_rank", "evaluate features on disk, from this or any other tool"),
    "search-gallery": ("search_gallery", "run_search_gallery", "find a person's pictures in a folder"),
    "export": (
        "export",
        "run_export",
        "a trained network as ONNX, torch.export or safetensors, with its card",
    ),
    "report": ("report", "run_report", "the page of a run: figures, cells, alpha, curves, ranked lists"),
    "compare": ("report", "run_compare", "runs side by side: figures, curves, differences of their configs"),
    "data": ("data", "run_data", "synth, check, cache: make, look through and decode data sets"),
    "models": ("models", "run_models", "the networks that have a name, with parameters and multiply-adds"),
    "costs": ("costs", "run_costs", "parameters, multiply-adds and activation memory of a network"),
    "tables": ("tables", "run_tables", "a table of the paper, run row by row, ours beside the paper's"),
    "profile": ("profile", "run_profile", "where the time of a search step goes, operation by operation"),
    "bench": ("bench", "run_bench", "measure the kernels against twins, peers and floors"),
    "doctor": ("doctor", "run_doctor", "what is installed and built, and what each op runs on"),
}

_RESUME = "; --resume with --run goes on where it stopped"
GO_ON = {
    "search": _RESUME,
    "pretrain": _RESUME,
    "train": _RESUME,
    "tables": "; the same command goes on, finished rows are kept",
    "demo": "; demo --run with the folder of this one goes on where it stopped",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command. The exit status: 0, 2 for input that can be put right, 130 after SIGINT, 143 SIGTERM.

    A run that gets a signal finishes its step and saves first; a second signal ends it at once.
    """
    try:
        modules, arguments = take_imports(sys.argv[1:] if arguments is None else arguments)
    except AutoReIDError as error:
        sys.stderr.write(f"autoreid-fast: {error}\n")
        return 2
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if name == "--version":
        sys.stdout.write(f"autoreid-fast {__version__}\n")
        return 0
    try:
        if name not in COMMANDS:
            near = get_close_matches(name, COMMANDS, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(COMMANDS)}"
            raise AutoReIDError(f"no command {name!r}{meant}")
        module, function, _ = COMMANDS[name]
        from autoreid_fast.progress import log_to_console
        from autoreid_fast.stopping import signals_interrupt

        log_to_console()
        command: Callable[[list[str]], int] = getattr(
            import_module(f"autoreid_fast.commands.{module}"), function
        )
        with signals_interrupt():
            for plugin in modules:
                import_plugin(plugin)
            return command(arguments[1:])
    except AutoReIDError as error:
        sys.stderr.write(f"autoreid-fast: {error}\n")
        return 2
    except BrokenPipeError:  # the reader of a pipe, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # no room, no permission
        where = error.filename or "a file"
        reason = str(error) if error.filename is None else f"{where}: {error.strerror}"
        if error.errno in UNWRITABLE:
            reason = str(cannot_write(where, error))
        elif isinstance(error, PermissionError):
            reason += ": choose a file or folder that you may read and write"
        sys.stderr.write(f"autoreid-fast: {reason}\n")
        return 2
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"autoreid-fast: interrupted{GO_ON.get(name, '')}\n")
        return getattr(interrupt, "status", 130)


def _help() -> str:
    lines = [
        "usage: autoreid-fast COMMAND ...",
        "",
        "Auto-ReID: search, train and evaluate person re-identification.",
        "",
    ]
    lines += [f"  {name:<14} {text}" for name, (_, _, text) in COMMANDS.items()]
    lines += [
        "",
        "autoreid-fast COMMAND --help explains each option with its default and source.",
        "--import MODULE (a name or a .py file), with any command, adds the data sets, backbones, losses and",
        "search algorithms that the module registers; it can be given several times.",
    ]
    return "\n".join(lines) + "\n"
