"""The paper's tables as data: the printed figures, and how each row is run."""
