"""The base of every typed config."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """An immutable config: unknown fields and values of the wrong type are errors.

    Each field's description says what it does and, where the paper speaks of it, what the paper prints.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
