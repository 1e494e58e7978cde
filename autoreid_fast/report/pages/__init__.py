"""HTML pages: the report of a run, the comparison of several, ranked lists of a gallery search."""
