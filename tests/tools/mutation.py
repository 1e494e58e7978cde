"""Mutation testing: one small error at a time is put into a module; does a test that owns it fail?

    python tests/tools/mutation.py [--sample 40] [--seed 0] [MODULE | MODULE:LINE,LINE... ...]

MODULE is one of `OWNERS`, by default all of them; with lines, every mutant of these is run. Each mutant lives
in a child that is forked before the package is imported, never in a file. docs/lab/mutation.md
"""

import argparse
import ast
import copy
import gc
import os
import random
import resource
import signal
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "autoreid_fast"

# module -> the tests that own it, those that fail soonest first
OPS = ("batch_from_cache", "batch_hard", "k_reciprocal", "mixed_op_sum", "nearest", "part_attention")
OPS += ("rank_gallery", "separable_conv", "stencil3x3")
OWNERS: dict[str, tuple[str, ...]] = {
    **{
        f"ops/{op}/reference.py": (
            "ops/test_references.py",
            f"ops/{op}/test_{op}.py",
            "ops/test_contract.py",
        )
        for op in OPS
    },
    "ops/batch_norm/strides.py": ("ops/batch_norm/test_strides.py", "ops/test_references.py"),
    "nas/backbone.py": ("nas/test_networks.py",),
    "nas/cell.py": ("nas/test_networks.py",),
    "nas/derivation.py": ("nas/test_derivation.py",),
    "nas/derived_network.py": ("nas/test_networks.py",),
    "nas/genotype.py": ("nas/test_genotype.py", "nas/test_derivation.py"),
    "nas/input_size.py": ("nas/test_networks.py",),
    "nas/macro.py": ("nas/test_networks.py",),
    "nas/operations/as_built.py": ("nas/test_fused_operations.py", "nas/test_source_supernet.py"),
    "nas/operations/candidates.py": ("nas/test_operations.py", "nas/test_networks.py"),
    "nas/operations/fused.py": ("nas/test_fused_operations.py",),
    "nas/operations/layers.py": (
        "nas/test_operations.py",
        "nas/test_networks.py",
        "nas/test_fused_operations.py",
        "nas/test_source_supernet.py",
    ),
    "nas/operations/registry.py": ("nas/test_operations.py",),
    "nas/operations/part_aware.py": (
        "nas/test_part_aware.py",
        "nas/test_operations.py",
        "nas/test_source_supernet.py",
    ),
    "nas/published.py": ("nas/test_genotype.py",),
    "nas/space.py": ("nas/test_space.py", "nas/test_derivation.py"),
    "nas/state.py": ("nas/test_source_supernet.py", "models/test_weights.py"),
    "nas/supernet/edge_cell.py": ("nas/test_networks.py", "nas/test_sampled_supernet.py"),
    "nas/supernet/sampled.py": ("nas/test_sampled_supernet.py",),
    "nas/supernet/source_cell.py": ("nas/test_source_supernet.py",),
    "nas/supernet/source_operations.py": ("nas/test_source_supernet.py",),
    "nas/supernet/source_supernet.py": ("nas/test_source_supernet.py",),
    "nas/supernet/supernet.py": ("nas/test_networks.py", "nas/test_sampled_supernet.py"),
    "nas/supernet/weight_map.py": ("nas/test_source_supernet.py",),
    "ops/csr.py": ("ops/test_csr.py",),
    "ops/keys.py": ("ops/nearest/test_nearest.py", "ops/test_refusals.py"),
    "evaluation/evaluate.py": ("evaluation/test_evaluate.py", "evaluation/test_reranking.py"),
    "evaluation/evaluator.py": ("evaluation/test_evaluator.py",),
    "evaluation/extraction.py": ("evaluation/test_evaluator.py",),
    "evaluation/features.py": ("evaluation/test_features.py", "evaluation/test_evaluator.py"),
    "evaluation/inputs.py": ("evaluation/test_inputs.py", "evaluation/test_evaluate.py"),
    "evaluation/metrics.py": ("evaluation/test_evaluate.py",),
    "evaluation/protocol.py": ("evaluation/test_protocol.py", "evaluation/test_ranking.py"),
    "evaluation/ranking.py": (
        "evaluation/test_ranking.py",
        "evaluation/test_reranking.py",
        "evaluation/test_evaluate.py",
    ),
    "evaluation/reranking.py": ("evaluation/test_reranking.py", "evaluation/test_ranking.py"),
    "evaluation/retrieval.py": ("evaluation/test_retrieval.py",),
}
# Tests to leave out: they take long, or start processes that would import the module as it is.
SLOW = "compile or opcheck or threads or memory_is or processes_share or portable or avx2 "
SLOW += "or finite_differences"
PYTEST = ["-x", "-q", "--tb=no", "-o", "addopts=--import-mode=importlib", "-k", f"not ({SLOW})"]
PYTEST += ["-p", "no:cacheprovider", "-p", "no:unraisableexception"]

PAIRS = [(ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.BitAnd, ast.BitOr), (ast.And, ast.Or)]
PAIRS += [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)]
SWAPS = {one: other for pair in PAIRS for one, other in (pair, pair[::-1])}
SWAPS |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift}
REMOVED = (ast.AugAssign, ast.Raise, ast.Continue, ast.Break)
UNTOUCHED = {"annotation", "returns", "decorator_list", "bases", "keywords"}


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """The mutants of ``node``: small errors that a careless hand might have made."""
    if type(node) in SWAPS:
        yield SWAPS[type(node)]()
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield from (ast.Constant(node.value + step) for step in (1, -1))
    if isinstance(node, ast.Call):
        apart = not any(isinstance(each, ast.Starred) for each in node.args[:2])
        if len(node.args) > 1 and apart and ast.unparse(node.func) not in ("min", "max"):
            yield changed(node, args=[node.args[1], node.args[0], *node.args[2:]])
        for dropped in node.keywords:
            if dropped.arg not in (None, "description"):
                yield changed(node, keywords=[each for each in node.keywords if each is not dropped])
    if isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(
        node.test, ast.UnaryOp | ast.Compare
    ):
        yield changed(node, test=ast.UnaryOp(ast.Not(), node.test))
    lone = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant | ast.Yield | ast.YieldFrom)
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    if lone or isinstance(node, REMOVED) or isinstance(target, ast.Attribute | ast.Subscript):
        yield ast.Pass()


def changed(node: ast.AST, **fields: object) -> ast.AST:
    """A copy of ``node`` with other ``fields``."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def mutants(node: ast.AST) -> Iterator[str]:
    """Change the tree under ``node`` in one place after another, and say how; the next step undoes it."""
    for name, value in ast.iter_fields(node):
        if name in UNTOUCHED and not isinstance(node, ast.Call):
            continue
        place, keys = (value, range(len(value))) if isinstance(value, list) else (node.__dict__, [name])
        for key in keys:
            child = place[key]
            if not isinstance(child, ast.AST) or isinstance(child, ast.Assert):
                continue
            for other in replacements(child):
                before = ast.unparse(node)
                place[key] = ast.fix_missing_locations(ast.copy_location(other, child))
                if ast.unparse(node) != before:  # f(x, x) the other way round
                    line = getattr(child, "lineno", getattr(node, "lineno", 0))
                    yield f"{line}: {difference(before, node)}"
                place[key] = child
            if not isinstance(child, ast.Raise):  # the words of a message
                yield from mutants(child)


def difference(before: str, node: ast.AST) -> str:
    """The first line of ``before`` that ``node`` says in another way, and how it says it."""
    pairs = zip(before.splitlines(), ast.unparse(node).splitlines(), strict=False)
    return next((f"{old.strip()}  ->  {new.strip()}" for old, new in pairs if old != new), before)


def run(path: Path, code: CodeType, tests: list[str], seconds: int) -> str:
    """`survived`, `killed` or `stuck`: what the tests say of ``code`` in place of the module at ``path``."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
        signal.alarm(20 * seconds)  # of waiting
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        plant(path, code)
        os._exit(int(pytest.main([*PYTEST, *tests])))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise SystemExit(f"{path}: no tests in {' '.join(tests)}")
    stuck = status in (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM)
    return "stuck" if stuck else "killed" if status else "survived"


def plant(path: Path, code: CodeType) -> None:
    """From here on the module at ``path`` is ``code``."""
    original = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> CodeType | None:
        return code if Path(loader.path) == path else original(loader, name)

    SourceFileLoader.get_code = get_code  # type: ignore[assignment, method-assign]


def run_module(module: str, lines: list[str], sample: int, seed: int) -> None:
    """Run a sample of a module's mutants, or all of these lines, and print who survived."""
    path = PACKAGE / module
    tree, tests = ast.parse(path.read_text()), [f"tests/{each}" for each in OWNERS[module]]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    if run(path, compile(tree, str(path), "exec"), tests, 300) != "survived":
        raise SystemExit(f"{module}: its tests fail as it stands")
    seconds = 20 + 3 * int(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    labels = list(mutants(tree))
    chosen = [index for index, label in enumerate(labels) if not lines or label.split(":")[0] in lines]
    if not lines and len(chosen) > sample:
        chosen = random.Random(f"{seed} {module}").sample(chosen, sample)
    outcomes = []
    for index, label in enumerate(mutants(tree)):
        if index in chosen:
            outcomes.append(run(path, compile(tree, str(path), "exec"), tests, seconds))
            if outcomes[-1] != "killed":
                print(f"{outcomes[-1]}  {module}:{label}", flush=True)
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in ("killed", "stuck", "survived"))
    print(f"{module}: {len(chosen)} of {len(labels)} mutants: {counts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("modules", nargs="*", default=list(OWNERS), metavar="MODULE[:LINE,LINE...]")
    parser.add_argument("--sample", type=int, default=40, help="mutants of a module (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # a pool of threads does not live through a fork
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none is needed, and all take their time
    import torch._dynamo  # noqa: F401  what every child needs

    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # one failure is enough
    hypothesis.settings.register_profile("mutation", phases=phases, database=None)
    hypothesis.settings.load_profile("mutation")
    gc.freeze()
    for each in chosen.modules:
        module, _, lines = each.partition(":")
        run_module(module, lines.split(",") if lines else [], chosen.sample, chosen.seed)


if __name__ == "__main__":
    main()
