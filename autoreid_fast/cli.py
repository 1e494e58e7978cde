"""The command line: `autoreid-fast COMMAND ...`."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from autoreid_fast import __version__
from autoreid_fast.errors import AutoReIDError, did_you_mean
from autoreid_fast.files import UNWRITABLE, cannot_write
from autoreid_fast.registry.plugins import import_plugin, take_imports
from autoreid_fast.streams import discard, print_out, settle, standard_error


class Command(NamedTuple):
    """A command, imported only when it is called."""

    module: str  # in autoreid_fast.commands
    function: str  # takes the remaining arguments, returns the exit status
    help: str
    resume: str = ""  # how to resume it after an interrupt

    def load(self) -> Callable[[list[str]], int]:
        """Import the command's function."""
        module = import_module(f"autoreid_fast.commands.{self.module}")
        function: Callable[[list[str]], int] = getattr(module, self.function)
        return function


_RESUME = "resume with --resume --run FOLDER"

COMMANDS = {
    "demo": Command(
        "demo",
        "run_demo",
        "run the whole method on a small synthetic data set, in minutes",
        "resume with demo --run FOLDER",
    ),
    "search": Command("search", "run_search", "search for an architecture (Algorithm 1)", _RESUME),
    "derive": Command("search", "run_derive", "derive the genotype of a search, finished or not"),
    "pretrain": Command(
        "pretrain", "run_pretrain", "pre-train a network on ImageNet or other classified images", _RESUME
    ),
    "train": Command("train", "run_train", "train and evaluate a network", _RESUME),
    "eval": Command("evaluate", "run_eval", "evaluate a trained network on its own or another data set"),
    "extract": Command("evaluate", "run_extract", "write the features of a trained network to disk"),
    "rank": Command("evaluate", "run_rank", "evaluate features on disk, from this or another tool"),
    "search-gallery": Command("search_gallery", "run_search_gallery", "find a person's pictures in a folder"),
    "export": Command(
        "export", "run_export", "export a trained network to ONNX, torch.export or safetensors"
    ),
    "report": Command("report", "run_report", "write a run's report: results, cells, alpha, curves, lists"),
    "compare": Command(
        "report", "run_compare", "compare runs: results, curves, differences of their configs"
    ),
    "data": Command("data", "run_data", "draw synthetic data; check and decode data sets"),
    "models": Command("models", "run_models", "list the networks, with their parameters and multiply-adds"),
    "costs": Command("costs", "run_costs", "count a network's parameters, multiply-adds and activations"),
    "tables": Command(
        "tables",
        "run_tables",
        "run a table of the paper row by row, beside the printed figures",
        "resume with the same command; finished rows are kept",
    ),
    "profile": Command("profile", "run_profile", "profile a search step, operation by operation"),
    "bench": Command("bench", "run_bench", "benchmark the ops against references, peers and hardware limits"),
    "parity": Command("parity", "run_parity", "compare the ops with their references in float64"),
    "doctor": Command("doctor", "run_doctor", "show what is installed, and what each op runs on"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    A run that receives a signal finishes its step and saves before it ends; a second signal ends it at once.

    Args:
        arguments: the command line without the program's name; default: sys.argv[1:].

    Returns:
        The exit status: 0, 2 for invalid input, 130 after SIGINT, 143 after SIGTERM.
    """
    name = ""
    try:
        arguments = [_home_expanded(word) for word in (sys.argv[1:] if arguments is None else arguments)]
        plugins, arguments = take_imports(arguments)
        name = arguments[0] if arguments else "--help"
        if name in ("-h", "--help"):
            return _print(_help())
        if name == "--version":
            return _print(f"autoreid-fast {__version__}\n")
        return _run(name, arguments[1:], plugins)
    except AutoReIDError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of --help, for instance `head`, has ended
        discard(sys.stdout)
        return 0
    except OSError as error:  # disk full, permission denied
        return _fail(_describe(error))
    except KeyboardInterrupt as interrupt:
        resume = COMMANDS[name].resume if name in COMMANDS else ""
        _fail(f"interrupted; {resume}" if resume else "interrupted")
        return getattr(interrupt, "status", 130)
    finally:
        settle()


def _run(name: str, arguments: list[str], plugins: list[str]) -> int:
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f"expected one of {', '.join(COMMANDS)}"
        raise AutoReIDError(f"no command {name!r}; {hint}")
    from autoreid_fast.progress import log_to_console
    from autoreid_fast.stopping import signals_interrupt

    log_to_console()
    command = COMMANDS[name].load()
    with signals_interrupt():
        for plugin in plugins:
            import_plugin(plugin)
        return command(arguments)


def _home_expanded(word: str) -> str:
    """Replace ``~/`` at the start of a value, which shells leave in ``--option=~/folder``."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{Path(value).expanduser()}" if value.startswith("~/") else word


def _print(text: str) -> int:
    print_out(text)
    return 0


def _fail(reason: str) -> int:
    standard_error.write(f"autoreid-fast: {reason}\n")
    return 2


def _describe(error: OSError) -> str:
    if error.errno in UNWRITABLE:
        return str(cannot_write(error.filename or "a file", error))
    reason = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
    if isinstance(error, PermissionError):
        reason += "; choose a file or folder that you may read and write"
    return reason


def _help() -> str:
    lines = [
        "usage: autoreid-fast COMMAND ...",
        "",
        "Auto-ReID: search, train and evaluate networks for person re-identification.",
        "",
        *(f"  {name:<14} {command.help}" for name, command in COMMANDS.items()),
        "",
        "autoreid-fast COMMAND --help explains the options of a command, with their defaults and sources.",
        "--import MODULE (a name or a .py file), with any command, adds the data sets, backbones, losses,",
        "search algorithms, operations and search spaces that the module registers; it can be repeated.",
    ]
    return "\n".join(lines) + "\n"
