"""Print, as JSON, the slow packages that are imported by the command line, each --help, and `models`.

All commands run in one process, so a package is listed only with the first command that imports it.
"""

import contextlib
import io
import json
import sys

from autoreid_fast.cli import COMMANDS, main

SLOW = (
    "h5py",
    "scipy",
    "matplotlib",
    "onnx",
    "tensorboard",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "triton",
)

if __name__ == "__main__":
    imported = {"the command line": [name for name in (*SLOW, "torch", "numpy") if name in sys.modules]}
    for arguments in (*([command, "--help"] for command in COMMANDS), ["models"]):
        before = set(sys.modules)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            main(arguments)
        imported[" ".join(arguments)] = [name for name in SLOW if name in sys.modules and name not in before]
    json.dump(imported, sys.stdout)
