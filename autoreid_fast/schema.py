"""Bases of typed configs and of typed files; reading them."""

import json
import os
import re
import reprlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from autoreid_fast.errors import AutoReIDError, did_you_mean

if TYPE_CHECKING:  # type checkers read the parameters of a config from its fields
    _Immutable = BaseModel
else:

    class _OneLineErrors(type(BaseModel)):
        """Metaclass whose classes raise AutoReIDError when they are called, in place of pydantic's box."""

        def __call__(cls, *arguments: Any, **values: Any) -> Any:
            try:
                return super().__call__(*arguments, **values)
            except ValidationError as error:
                raise AutoReIDError(f"{cls.__name__}: {wrong_fields(error, cls)}") from None

    class _Immutable(BaseModel, metaclass=_OneLineErrors):
        def __setattr__(self, name: str, value: Any) -> None:
            """Refuse to change a field."""
            raise AutoReIDError(
                f"{type(self).__name__}: {name} cannot be changed; make another config: "
                f"config.model_copy(update={{{name!r}: ...}})"
            )


class Config(_Immutable):
    """Immutable config; unknown fields and values of the wrong type are errors.

    Each field has a description: what it does, and the paper's value if it has one.

    Raises:
        AutoReIDError: an unknown field, or a value that is not allowed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        """Replace ``~`` in paths: shells do so only at the start of a word, and YAML files have no shell."""
        return _home_expanded(value)

    @classmethod
    def known_fields(cls) -> dict[str, FieldInfo]:
        """Return the fields that a mapping may have to be validated by this class."""
        return cls.model_fields


def _home_expanded(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_home_expanded, value)) if type(value) in (tuple, list) else value
    return value.expanduser() if isinstance(value, Path) else value


class Record(BaseModel):
    """A file that a command wrote, or a part of it. Fields of other versions are kept.

    Values are not converted: a number written as text is an error, and so is NaN.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)


Content = TypeVar("Content")
LONGEST = 300
"""Characters of what is wrong with a file; a value in it may be of any length."""
MAX_DIGITS = 1_000
"""Most digits of an integer in a file."""


def read_json(path: Path, kind: type[Content]) -> Content:
    """Read a JSON file as a ``kind``: a `Record`, or any type that pydantic validates.

    Raises:
        AutoReIDError: there is no such file, it cannot be read, is not JSON, or does not fit ``kind``.
    """
    if not path.is_file():  # a pipe would be waited for
        raise AutoReIDError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    try:
        value: Content = _adapter(cast(Any, kind)).validate_json(path.read_bytes())
        return value
    except OSError as error:
        raise AutoReIDError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise AutoReIDError(f"{path}: {_misfit(error)}") from None


def parse_json(text: str, source: str) -> Any:
    """Parse JSON.

    Args:
        text: The JSON.
        source: Its file, for errors.

    Raises:
        AutoReIDError: it is not JSON, or is nested too deep.
    """
    try:
        return json.loads(text, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise AutoReIDError(f"{source}: not JSON ({error})") from None


def whole_number(digits: str) -> int:
    """Convert decimal digits to an integer.

    Raises:
        ValueError: there are more than `MAX_DIGITS`, which Python might refuse to convert or to print.
    """
    _check_digits(digits)
    return int(digits)


def _check_digits(number: str) -> None:
    if len(number) > MAX_DIGITS:
        raise ValueError(f"a number of {len(number):,} digits; expected at most {MAX_DIGITS:,}")


def check(value: Any, kind: type[Content], source: str) -> Content:
    """Check that ``value`` fits ``kind``, any type that pydantic validates.

    Args:
        value: The value.
        kind: The type.
        source: Where the value comes from, for errors.

    Raises:
        AutoReIDError: it does not fit.
    """
    try:
        checked: Content = _adapter(cast(Any, kind)).validate_python(value)
        return checked
    except ValidationError as error:
        raise AutoReIDError(f"{source}: {_misfit(error)}") from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _misfit(error: ValidationError) -> str:
    """Describe in one line the first thing that is wrong with a file: thousands may be."""
    detail = error.errors(include_url=False)[0]
    if detail["type"] == "json_invalid":
        return f"not JSON ({detail['ctx']['error']})"
    others = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    place = ".".join(map(str, detail["loc"]))
    message = _message(detail) if detail["type"] != "value_error" else str(detail["ctx"]["error"])
    wrong = f"{place}: {message}" if place else message
    return f"{wrong if len(wrong) <= LONGEST else f'{wrong[:LONGEST]} ...'}{others}"


INTEGER = "tag:yaml.org,2002:int"
"""PyYAML's tag of integers."""
MAX_DEPTH = 32
"""Deepest nesting of YAML: hundreds of open brackets take PyYAML minutes, then overflow the stack."""


MAX_VALUES = 100_000
"""Most values of a YAML file; a few hundred bytes of anchors that refer to anchors stand for billions."""


class _ShallowLoader(yaml.SafeLoader):
    """The safe loader with limits on nesting and size, without halves of characters or numbers in base 60.

    A key that a mapping has twice is refused; PyYAML uses the last one.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._check(self._depth)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                raise yaml.YAMLError(f"{key.value} is given twice, in lines {lines[key.value]} and {line}")
            lines[key.value] = line
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        os.fsencode(value)  # refuses half a character, which can be neither printed nor in a file's name
        if node.tag == INTEGER:
            _check_digits(value)
        return value

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        tag: str = super().resolve(kind, value, implicit)
        is_base_60 = tag in (INTEGER, "tag:yaml.org,2002:float") and ":" in value
        return "tag:yaml.org,2002:str" if is_base_60 else tag

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES // 100:  # merges of merges multiply
            raise yaml.YAMLError(f"more than {MAX_VALUES // 100} keys in one mapping")

    def fetch_flow_collection_start(self, token_class: type[yaml.Token]) -> None:
        self._check(self.flow_level + 1)  # tokens are read before nodes
        super().fetch_flow_collection_start(token_class)

    def _check(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} deep")


def read_yaml(text: str, source: str) -> Any:
    """Parse YAML that holds only data, never code.

    Args:
        text: The YAML.
        source: Its file, for errors.

    Raises:
        AutoReIDError: it is not YAML, is nested too deep, or has too many values.
    """
    try:
        value = yaml.load(text, _ShallowLoader)
        _check_size(value)
        return value
    except Exception as error:  # not only YAMLError: a date in month 13 is a ValueError
        raise AutoReIDError(f"{source}: not YAML ({' '.join(str(error).split())})") from None


def _check_size(value: Any) -> None:
    """Raise a YAMLError if ``value``, with its anchors spelled out, holds more than `MAX_VALUES`."""
    pending, count = [value], 0
    while pending:
        value = pending.pop()
        count += 1
        if count + len(pending) > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES:,} values, counting each use of an anchor")
        if isinstance(value, dict):
            pending += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            pending += value


AnyConfig = TypeVar("AnyConfig", bound=Config)


def require_config(config: object, config_class: type[Config]) -> None:
    """Raise AutoReIDError unless ``config`` is a ``config_class``."""
    if isinstance(config, config_class):
        return
    name = config_class.__name__
    given = f"the class {config.__name__}" if isinstance(config, type) else f"a {type(config).__name__}"
    raise AutoReIDError(f"config is {given}; expected {name}(...)")


def from_values(config_class: type[AnyConfig], values: Mapping[str, Any], source: str) -> AnyConfig:
    """Validate ``values`` as a ``config_class``.

    Args:
        config_class: The class.
        values: Values by field.
        source: Where they come from, for errors.

    Raises:
        AutoReIDError: a field is unknown, or a value is not allowed.
    """
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        raise AutoReIDError(f"{source}: {wrong_fields(error, config_class)}") from None


def wrong_fields(
    error: ValidationError,
    config_class: type[BaseModel] | None = None,
    name: Callable[[str], str] = str,
) -> str:
    """Describe all that pydantic found wrong in one line.

    Args:
        error: What pydantic raised.
        config_class: The class that was validated, to suggest the names of its fields.
        name: What to call a field, given its dotted path.
    """
    wrong = []
    for detail in error.errors(include_url=False):
        field = name(".".join(str(part) for part in detail["loc"]))
        if detail["type"] == "extra_forbidden":
            wrong.append(f"{field}: unknown field{_suggestion(detail['loc'], config_class)}")
        else:
            wrong.append(f"{field}: {_message(detail)}")
    return "; ".join(wrong)


def _message(detail: ErrorDetails) -> str:
    """Pydantic's message in the words of the other errors: expected and got."""
    if detail["type"] == "missing":
        return "missing; give it a value"
    if detail["type"] == "int_parsing_size" and isinstance(detail["input"], float):
        return f"expected a whole number below 2^63, got {_shown(detail['input'])}"
    if detail["type"] == "int_parsing_size":
        return f"expected a number of at most {MAX_DIGITS:,} digits, got {len(detail['input']):,}"
    message = detail["msg"].removeprefix("Value error, ")
    message = re.sub(r"^Input should be (?=greater|less)", "expected a value ", message)
    message = re.sub(r"^Input should be (?:a valid dictionary or instance of \w+)?", "expected ", message)
    message = re.sub(r"^Input is not a valid path.*", "expected a path", message)
    message = message if message != "expected " else "expected a mapping of fields"
    shown = _shown(detail["input"])
    named = isinstance(detail["input"], str) and shown in message
    return message if named else f"{message}, got {shown}"


def _suggestion(location: tuple[int | str, ...], config_class: type[BaseModel] | None) -> str:
    """Suggest the field whose name is similar to the unknown one at ``location``, if there is one."""
    fields = _fields(config_class)
    for part in location[:-1]:
        fields = _fields(fields[str(part)].annotation) if str(part) in fields else {}
    hint = did_you_mean(str(location[-1]), fields)
    return f", {hint}" if hint else ""


def _fields(config_class: Any) -> dict[str, FieldInfo]:
    if isinstance(config_class, type) and issubclass(config_class, Config):
        return config_class.known_fields()
    return {}


def _shown(value: object) -> str:
    """Format a value for a message, cut short: YAML aliases can make it exponentially long."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 200, 200
    try:
        return short.repr(value)
    except ValueError:  # Python refuses to print an integer of more than 4300 digits
        return "a number with thousands of digits"
