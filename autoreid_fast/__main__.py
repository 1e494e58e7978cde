"""`python -m autoreid_fast` (and `torchrun ... -m -- autoreid_fast`): the command line."""

import sys

from autoreid_fast.cli import main

sys.exit(main())
