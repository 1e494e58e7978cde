"""Run a script of Triton kernels in a process of its own.

PLAN, a global (of ``runpy``), has the ``script``, a file for its ``errors``, and the ``environment`` to set.
"""

import os
import runpy
import sys
import traceback
from pathlib import Path

if __name__ == "__main__":
    plan = globals()["PLAN"]
    for name in list(os.environ):
        if name.startswith("TRITON_"):
            del os.environ[name]
    os.environ.update(plan["environment"])
    sys.path[:0] = [str(Path(__file__).parent)]
    sys.argv = [plan["script"]]
    try:
        runpy.run_path(plan["script"], run_name="__main__")
    except BaseException:
        Path(plan["errors"]).write_text(traceback.format_exc())
        raise SystemExit(1) from None
