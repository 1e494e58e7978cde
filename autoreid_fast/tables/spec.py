"""What a table of the paper is: its rows as configs to run, and the figures that it prints."""

from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import Field

from autoreid_fast.schema import Config

TableNumber = Literal[1, 2, 3, 4, 5, 6]
_SPECS = resources.files("autoreid_fast.tables") / "specs"


class RowSpec(Config):
    """One row: the paper's figures, and how it is run; without ``train`` and ``rerank_of`` it is not."""

    name: str
    paper: tuple[float | str | None, ...] = Field(description="The printed figures, a column each.")
    search: str | None = Field(None, description="Which of the table's searches finds the network.")
    train: dict[str, Any] | None = Field(None, description="What the row changes of the training preset.")
    rerank_of: str | None = Field(None, description="The row whose features are re-ranked.")

    @property
    def runs(self) -> bool:
        """Whether the row can be run."""
        return self.train is not None or self.rerank_of is not None


class TableSpec(Config):
    """A table of the paper."""

    title: str
    data: Literal["market1501", "cuhk03", "msmt17"] = Field(description="The data set it is run on.")
    columns: tuple[str, ...] = Field(description="Names in metrics.json, after `variant_` where it has any.")
    search: str | None = Field(None, description="Preset of the searches.")
    pretrain: str | None = Field(None, description="Preset of the pre-trainings; rows start from them.")
    train: str = Field(description="Preset of the trainings.")
    searches: dict[str, dict[str, Any]] = Field({}, description="What each changes of the search preset.")
    variants: dict[str, dict[str, Any]] = Field(
        {"": {}}, description="Trainings of each row, by what they change of the training preset."
    )
    rows: tuple[RowSpec, ...]


def load_table(number: TableNumber) -> TableSpec:
    """Table ``number`` of the paper."""
    return TableSpec.model_validate(yaml.safe_load((_SPECS / f"table{number}.yaml").read_text("utf-8")))
