"""Items: the step pair of the search, and short searches and trainings."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from autoreid_fast.search.profile import ProfileConfig, profile_step

from .items import Figures, Setting

TOY: dict[str, Any] = {
    "channels": 3,
    "height": 112,
    "width": 16,
    "identities": 2,
    "images": 2,
    "cells_per_block": (1, 1, 1, 1),
}
DATA, RUNS = Path("build/gpu-pack/pedestrians"), Path("build/gpu-runs")
"""Not in the folder of the results: of its files only a few come back from a borrowed machine."""
LONGEST = 60
"""Operations that a profile keeps."""


def pair(setting: Setting, pairs: int, **fields: Any) -> Figures:
    """Time and profile a step pair; on the CPU, captured execution becomes eager."""
    if setting.device == "cpu" and fields.get("execution") == "captured":
        fields["execution"] = "eager"
    if setting.toy:
        fields, pairs = {**fields, **TOY}, 1
    profile = profile_step(ProfileConfig(device=setting.device, pairs=pairs, **fields)).to_dict()
    return {**profile, "operations": profile["operations"][:LONGEST]}


def short_search(setting: Setting) -> Figures:
    """Search, then train the network found, on synthetic pedestrians; 40 epochs, or one at toy sizes."""
    shutil.rmtree(RUNS, ignore_errors=True)
    for command in commands_of_search(setting):
        subprocess.run([sys.executable, "-m", "autoreid_fast", *command], check=True)
    return {path.parent.name: json.loads(path.read_text()) for path in RUNS.rglob("metrics.json")}


def commands_of_search(setting: Setting) -> list[list[str]]:
    """Arguments of the commands; `data synth` leaves images as they are that `make gpu-pack` has made."""
    data = str(DATA)
    common = ["--device", setting.device, "--data.kind", "synthetic", "--data.root", data]
    search = ["search", "--run", str(RUNS / "search"), *common]
    train = ["train", "--run", str(RUNS / "train"), "--network", str(RUNS / "search"), *common]
    if setting.toy:
        search += ["--config", "demo-search", "--epochs", "1"]
        train += ["--config", "demo-train", "--epochs", "1"]
    else:
        search += ["--epochs", "40", "--alpha.decay-epochs", "12", "30"]
        train += ["--epochs", "40", "--decay-epochs", "26", "34"]
    return [["data", "synth", data], search, train]
