"""Loading single modules of peers whose packages do not import with this torch.

A module is loaded from its file, without the package's ``__init__``, which imports torchvision, OpenCV and
others that the module itself does not need.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np

INSTALL = {
    "fastreid": "pip install cython, and pip install --no-deps fastreid==1.4.0 (it asks for torch 1.13)",
}
"""How to install packages that no extra of ours can name."""


def package_file(package: str, path: str) -> Path:
    """Path of a file in an installed package, without importing it.

    Raises:
        ImportError: the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (file := Path(folder) / path).is_file():
            return file
    raise ImportError(f"No module named {package!r}" if spec is None else f"{package} has no {path}")


def load_file(file: Path, without: Sequence[str] = ()) -> ModuleType:
    """Load the module in ``file``; while it loads, importing any of the modules ``without`` fails.

    Raises:
        ImportError: a module that it imports is not installed.
    """
    spec = importlib.util.spec_from_file_location(file.name.partition(".")[0], file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, dict.fromkeys(without)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


@functools.cache
def cython_module(package: str, path: str) -> ModuleType:
    """Compile and load a Cython source of an installed package, once per process, as its ``setup.py`` would.

    Raises:
        ImportError: the package or Cython is not installed, or the source does not compile.
    """
    source = package_file(package, path)
    if importlib.util.find_spec("Cython") is None:
        raise ImportError("No module named 'Cython'")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(source, folder)
        command = [sys.executable, "-m", "Cython.Build.Cythonize", "--inplace", source.name]
        environment = {**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} -I{np.get_include()}"}
        built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        libraries = [file for suffix in EXTENSION_SUFFIXES for file in Path(folder).glob(f"*{suffix}")]
        if built.returncode or not libraries:
            raise ImportError(f"{package}/{path} does not compile: {built.stderr.strip()[-200:]}")
        return load_file(libraries[0])
