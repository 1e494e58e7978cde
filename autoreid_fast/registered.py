"""Configs whose class is chosen by a registered name: one class per data set, loss or search algorithm."""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Self, cast

from pydantic import ModelWrapValidatorHandler, TypeAdapter, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry import Entry, Registry
from autoreid_fast.schema import Config


class RegisteredConfig(Config):
    """Base of configs of which a registered name chooses the class.

    A base class of one kind of thing names its registry, the field that holds the name, and the name that
    is the default. Each thing's own class adds the fields that it alone has. Validating the base class, as
    a field of another config or by itself, gives an instance of the class that the name stands for; so does
    calling it. Fields declared with the base class need pydantic's `SerializeAsAny`.

    Fields of another name's class are dropped where they hold their defaults, since runs made before there
    were separate classes recorded all of them; another value is an error.

    Examples:
        >>> from autoreid_fast.data.config import DataConfig
        >>> DataConfig(kind="folder", root="images").split_seed
        0
    """

    registry: ClassVar[Registry[Any]]
    key: ClassVar[str]
    default: ClassVar[str]

    def __new__(cls, **values: Any) -> Self:
        """Make an instance of the class that the name in ``values`` stands for."""
        name = values.get(cls.key, cls.default)
        known = isinstance(name, str) and name in cls.registry  # validation reports what is unknown
        return super().__new__(cls.class_of(name) if known and cls is cls.base() else cls)

    @classmethod
    def base(cls) -> "type[RegisteredConfig]":
        """The class that declares the registry."""
        return next(base for base in cls.__mro__ if "registry" in base.__dict__)

    @classmethod
    def class_of(cls, name: str) -> type[Self]:
        """The config class registered under ``name``; raises AutoReIDError if there is none."""
        return _class_of(cls.base(), cls.registry[name])

    @classmethod
    def default_name(cls) -> str:
        """The name that an instance has if none is given: that of its class, the default for the base class.

        Raises:
            AutoReIDError: nothing is registered with this class.
        """
        if cls is cls.base():
            return cls.default
        names = {_class_of(cls.base(), entry): entry.name for entry in cls.registry.entries()}
        for ancestor in cls.__mro__:
            if ancestor in names:
                return names[ancestor]
        raise AutoReIDError(f"{cls.__name__}: no {cls.registry.kind} is registered with this config")

    @classmethod
    def known_fields(cls) -> dict[str, FieldInfo]:
        """The fields of every registered class."""
        known = dict(cls.model_fields)
        for entry in cls.registry.entries():
            known |= _class_of(cls.base(), entry).model_fields
        return known

    @model_validator(mode="wrap")
    @classmethod
    def _choose_class(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, Mapping):
            return handler(values)
        try:
            name = values[cls.key] if cls.key in values else cls.default_name()
            chosen = cls.class_of(name) if isinstance(name, str) else cls
        except AutoReIDError as error:
            raise _field_error(cls, cls.key, values.get(cls.key), str(error)) from None
        if cls is cls.base() and chosen is not cls:
            return chosen.model_validate(values)
        if not issubclass(cls, chosen):
            reason = f"not the {cls.registry.kind} that {cls.__name__} is the config of"
            raise _field_error(cls, cls.key, name, reason)
        return handler({cls.key: name, **_without_fields_of_others(cls, name, values)})


def _class_of(base: type[RegisteredConfig], entry: Entry[Any]) -> Any:
    """The entry's config class; one without further fields if its builder takes the base class or none."""
    if entry.config is not None and entry.config is not base:
        return entry.config
    return _class_without_fields(base, entry.name)


@cache
def _class_without_fields(base: type[RegisteredConfig], name: str) -> type[RegisteredConfig]:
    """A subclass of ``base`` that only the entry called ``name`` has."""
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__)


def _without_fields_of_others(
    cls: type[RegisteredConfig], name: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    kept = dict(values)
    for field, value in values.items():
        if field in cls.model_fields:
            continue
        owners = {
            entry.name: config.model_fields[field]
            for entry in cls.registry.entries()
            if field in (config := _class_of(cls.base(), entry)).model_fields
        }
        if any(_is_default(info, value) for info in owners.values()):
            del kept[field]
        elif owners:
            reason = f"a field of {cls.key} {' and '.join(owners)}, not of {name}; leave it out"
            raise _field_error(cls, field, value, reason)
    return kept


def _is_default(info: FieldInfo, value: Any) -> bool:
    try:
        default = info.get_default(call_default_factory=True)
        return bool(TypeAdapter(cast(Any, info.annotation)).validate_python(value) == default)
    except ValidationError:
        return False


def _field_error(cls: type[RegisteredConfig], field: str, value: Any, reason: str) -> ValidationError:
    error = PydanticCustomError("registered_config", "{reason}", {"reason": reason})
    details = InitErrorDetails(type=error, loc=(field,), input=value)
    return ValidationError.from_exception_data(cls.__name__, [details])
