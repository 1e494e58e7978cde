"""Blocks of docs/develop/new-operation.md, applied to a copy of the package, make a working operation."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "develop" / "new-operation.md").read_text()

# what is run in the copy, once each of the page's blocks is in its place; its arguments are the copy's folder
# and the page's search
CHECKS = """
import sys
import torch
import autoreid_fast
assert autoreid_fast.__file__.startswith(sys.argv[1]), autoreid_fast.__file__
torch.set_num_threads(1)

from autoreid_fast.nas.supernet.source_supernet import SourceSupernet
from autoreid_fast.nas.supernet.supernet import Supernet
source = SourceSupernet(3, (1, 1, 1, 1), "rows").eval()
reference = Supernet(3, (1, 1, 1, 1), "rows").eval()
reference.load_state_dict(source.reference_state_dict())
images = torch.randn(2, 3, 97, 24)
torch.testing.assert_close(source(images), reference(images), rtol=1e-4, atol=1e-5)

from autoreid_fast.nas.derivation import derive
from autoreid_fast.nas.derived_network import DerivedNetwork
alpha = torch.zeros(14, 8)
alpha[:, 7] = 1
genotype = derive(alpha, alpha, "rows")
assert {edge.op for node in genotype.normal for edge in node} == {"row_mean"}
DerivedNetwork(genotype, 4, (1, 1, 1, 1)).eval()(images)

from autoreid_fast import cli
from autoreid_fast.commands import search
search.draw_report = lambda folder: None
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the page's blocks applied."""
    root = tmp_path_factory.mktemp("copy")
    unwanted = shutil.ignore_patterns("__pycache__", "*cuda*.so")
    shutil.copytree(ROOT / "autoreid_fast", root / "autoreid_fast", ignore=unwanted)
    for name in ("benchmarks", "kernels"):
        shutil.copytree(ROOT / name, root / "autoreid_fast" / name, ignore=unwanted)
        (root / name).symlink_to(root / "autoreid_fast" / name)
    for text in re.findall(r"^```diff\n(.*?)^```$", PAGE, re.M | re.S):
        first, _, rest = text.partition("\n")
        apply(root / first.split()[1], rest)
    return root


def apply(path: Path, hunk: str) -> None:
    """Replace a hunk's old lines, which must be there once, by its new ones."""
    lines = hunk.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    if not old.strip():
        raise AssertionError(f"{path.name}: a hunk without a line that says where it goes")
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} has not once\n{old}"
    path.write_text(text.replace(old, new))


def test_every_block_of_the_page(copy: Path, people: Path, small_search: list[str]) -> None:
    (line,) = re.findall(r"^autoreid-fast (search .*)$", PAGE, re.M)
    (copy / "people").symlink_to(people)
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHECKS, str(copy), *line.split(), *small_search]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (copy / "runs" / "rows" / "genotype.json").is_file()
