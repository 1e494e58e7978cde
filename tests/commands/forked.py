"""Run a command line, or a script and its arguments, in a forked process.

`Forked` in conftest.py starts this file with `runpy.run_path` and sets the global JOB.
"""

import os
import runpy
import sys
import time
from pathlib import Path
from typing import TypedDict

from autoreid_fast.cli import main

SHUTDOWN = 2.0
"""Seconds before the end of a process, in place of an interpreter's shutdown. The main process of a group
must not vanish before the others have read its error."""


class Job(TypedDict):
    """Command line, or the path of a script and its arguments."""

    arguments: list[str]
    environment: dict[str, str]
    output: str  # files for standard output and error
    errors: str


if __name__ == "__main__":
    job: Job = globals()["JOB"]
    os.environ.update(job["environment"])
    for path, stream in ((job["output"], sys.stdout), (job["errors"], sys.stderr)):
        with Path(path).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = job["arguments"]
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    elif status := main(sys.argv):
        time.sleep(SHUTDOWN)
        sys.exit(status)
