"""Tables 1 to 6 of the paper: printed figures, and the configs that run each row."""

from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import Field

from autoreid_fast.schema import Config

TableNumber = Literal[1, 2, 3, 4, 5, 6]

_SPECS = resources.files("autoreid_fast.paper") / "specs"


class RowSpec(Config):
    """One row: the paper's figures, and how to run it. Without ``train`` and ``rerank_of`` it is not run."""

    name: str
    paper: tuple[float | str | None, ...] = Field(description="The printed figures, one per column.")
    search: str | None = Field(None, description="Name of the table's search that finds the network.")
    train: dict[str, Any] | None = Field(None, description="Changes to the training preset.")
    rerank_of: str | None = Field(None, description="The row whose features are re-ranked.")

    @property
    def runs(self) -> bool:
        """Whether the row can be run; the paper quotes the others from elsewhere."""
        return self.train is not None or self.rerank_of is not None


class TableSpec(Config):
    """One table."""

    title: str
    data: Literal["market1501", "cuhk03", "msmt17"] = Field(description="Data set.")
    columns: tuple[str, ...] = Field(
        description="Names in metrics.json, with the prefix `<variant>_` if the table has variants."
    )
    search: str | None = Field(None, description="Preset of the searches.")
    pretrain: str | None = Field(None, description="Preset of the pre-trainings that rows start from.")
    train: str = Field(description="Preset of the trainings.")
    searches: dict[str, dict[str, Any]] = Field({}, description="Searches: changes to the search preset.")
    variants: dict[str, dict[str, Any]] = Field(
        {"": {}}, description="Trainings of each row: changes to the training preset, by variant."
    )
    rows: tuple[RowSpec, ...]

    def row(self, name: str) -> RowSpec:
        """The row of this name. Raises KeyError if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def column(self, column: str) -> tuple[str, str]:
        """The variant of a column and its name in ``metrics.json``."""
        variant, _, metric = column.partition("_")
        return (variant, metric) if variant in self.variants else ("", column)


@cache
def load_table(number: TableNumber) -> TableSpec:
    """Load a table of the paper.

    Examples:
        >>> load_table(1).row("ResNet-50").paper
        (68.5, 87.2, 95.5, 97.1, 25.1, 3.8)
    """
    return TableSpec.model_validate(yaml.safe_load((_SPECS / f"table{number}.yaml").read_text("utf-8")))
