"""Start-up: packages that take long to import are imported only when they are used."""

import json
import subprocess
import sys
from pathlib import Path


def test_help_and_models_import_no_slow_packages() -> None:
    worker = Path(__file__).with_name("import_worker.py")
    process = subprocess.run([sys.executable, str(worker)], capture_output=True, text=True, check=True)
    imported = json.loads(process.stdout)
    assert {arguments: names for arguments, names in imported.items() if names} == {}
