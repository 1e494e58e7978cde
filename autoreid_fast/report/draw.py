"""Draw the report at the end of a run."""

import logging
import time
from pathlib import Path

logger = logging.getLogger("autoreid_fast")


def draw_report(folder: Path) -> None:
    """Write the report of a run. An error is a warning in the log; it never fails the finished run."""
    begin = time.perf_counter()
    try:
        from autoreid_fast.report.pages.run import write_report  # imports matplotlib

        page = write_report(folder)
        logger.info("report: %s (%.1f s)", page, time.perf_counter() - begin)
    except Exception as error:
        logger.warning("no report of %s: %s: %s", folder, type(error).__name__, " ".join(str(error).split()))
