"""Entry point of `python -m autoreid_fast`, and of `torchrun ... -m -- autoreid_fast`."""

import sys

from autoreid_fast.cli import main

sys.exit(main())
