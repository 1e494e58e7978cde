"""Architecture search: `search`, its config, and the algorithms, to which a user's own can be added."""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.search.algorithm import SearchAlgorithm
    from autoreid_fast.search.config import SearchConfig, register_search_algorithm
    from autoreid_fast.search.run import search

__all__ = ["SearchAlgorithm", "SearchConfig", "register_search_algorithm", "search"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "SearchAlgorithm": ".algorithm",
        "SearchConfig": ".config",
        "register_search_algorithm": ".config",
        "search": ".run",
    },
)
