"""Measure start-up: CPU seconds of commands over those of `import torch` (docs/lab/start-up.md).

python tests/tools/startup.py
"""

import resource
import subprocess
import sys

from autoreid_fast.cli import COMMANDS

REPEATS = 4


def cpu_seconds(arguments: list[str]) -> float:
    """User and system seconds of ``python ARGUMENTS``, the least of several runs."""
    seconds = []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


if __name__ == "__main__":
    python, torch = cpu_seconds(["-c", ""]), cpu_seconds(["-c", "import torch"])
    print(f"{'import torch':<24}{torch - python:6.2f}")
    print(f"{'import autoreid_fast':<24}{cpu_seconds(['-c', 'import autoreid_fast']) - python:6.2f}")
    print("over import torch:")
    for arguments in (["models"], *([command, "--help"] for command in COMMANDS)):
        seconds = cpu_seconds(["-m", "autoreid_fast", *arguments]) - torch
        print(f"{' '.join(arguments):<24}{seconds:6.2f}", flush=True)
