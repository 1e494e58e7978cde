"""Configs whose class is chosen by a registered name: one class per data set, loss or search algorithm."""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Self, cast

from pydantic import ModelWrapValidatorHandler, TypeAdapter, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry.registry import Entry, Registry
from autoreid_fast.schema import Config


class RegisteredConfig(Config):
    """Base of configs whose class is chosen by a registered name.

    The base class for one kind of thing declares the registry, the key (the field that holds the name) and
    the default name, and has the fields that all things of the kind share. Each thing has a subclass with
    its further fields. Validating or calling the base class gives an instance of the subclass that the name
    stands for. A field that is declared with the base class needs pydantic's `SerializeAsAny`, to be dumped
    with all fields of its value.

    A field of another subclass is dropped if it has its default value, because earlier versions recorded the
    fields of all subclasses. With any other value it is an error.

    Attributes:
        registry: The registry of the things.
        key: Name of the field that holds a thing's name.
        default: Name of the default thing.

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
        """Return the class that declares the registry."""
        return next(base for base in cls.__mro__ if "registry" in base.__dict__)

    @classmethod
    def class_of(cls, name: str) -> type[Self]:
        """Return the config class of ``name``; AutoReIDError if nothing is registered under it."""
        return _class_of(cls.base(), cls.registry[name])

    @classmethod
    def default_name(cls) -> str:
        """Return the name that this class is registered under; for the base class, the default.

        Raises:
            AutoReIDError: nothing is registered with this config.
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
        """Return the fields of all registered classes."""
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
            raise field_error(cls, cls.key, values.get(cls.key), str(error)) from None
        if cls is cls.base() and chosen is not cls:
            return chosen.model_validate(values)
        if not issubclass(cls, chosen):
            reason = f"not the {cls.registry.kind} that {cls.__name__} is the config of"
            raise field_error(cls, cls.key, name, reason)
        return handler({cls.key: name, **_without_fields_of_others(cls, name, values)})


def _class_of(base: type[RegisteredConfig], entry: Entry[Any]) -> Any:
    """Return the entry's config class; if its builder takes none, a subclass without further fields."""
    if entry.config is not None and entry.config is not base:
        return entry.config
    return _class_without_fields(base, entry.name)


@cache
def _class_without_fields(base: type[RegisteredConfig], name: str) -> type[RegisteredConfig]:
    """Make a subclass of ``base`` for the entry ``name`` only."""
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
            raise field_error(cls, field, value, reason)
    return kept


def _is_default(info: FieldInfo, value: Any) -> bool:
    try:
        default = info.get_default(call_default_factory=True)
        return bool(TypeAdapter(cast(Any, info.annotation)).validate_python(value) == default)
    except ValidationError:
        return False


def field_error(cls: type[RegisteredConfig], field: str, value: Any, reason: str) -> ValidationError:
    error = PydanticCustomError("registered_config", "{reason}", {"reason": reason})
    details = InitErrorDetails(type=error, loc=(field,), input=value)
    return ValidationError.from_exception_data(cls.__name__, [details])
