"""Run a script of Triton kernels in a process of its own; the global ``PLAN`` says which."""

import os
import runpy
import sys
import traceback
from pathlib import Path

PLAN: dict[str, str]
"""``script``, ``errors`` (the file that takes its errors), and the environment variables to set."""

for name in list(os.environ):
    if name.startswith("TRITON_"):
        del os.environ[name]
script, errors = PLAN.pop("script"), PLAN.pop("errors")
os.environ.update(PLAN)
sys.path[:0] = [str(Path(__file__).parent)]
sys.argv = [script]
try:
    runpy.run_path(script, run_name="__main__")
except BaseException:
    Path(errors).write_text(traceback.format_exc())
    raise SystemExit(1) from None
