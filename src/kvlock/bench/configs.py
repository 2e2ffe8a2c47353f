"""What bench needs of configs. It goes when `kvlock.methods.catalogue` has these functions."""

from dataclasses import asdict, fields
from typing import Any

from kvlock.methods.table import METHODS, MethodConfig, config_class


def config_to_dict(config: MethodConfig) -> dict[str, Any]:
    """The config as JSON has it."""
    return asdict(config)


def config_from_dict(method: str, record: dict[str, Any]) -> MethodConfig:
    """The method's config of a record; fields that it lacks have their defaults."""
    return config_class(method)(**record)


def chosen_fields(config: MethodConfig) -> dict[str, Any]:
    """What differs from the defaults, so that an option that is added later does not make it
    another config.

    1 and 1.0 differ: one counts steps, the other is a share of them.
    """
    usual = {f.name: repr(f.default) for f in fields(config)}
    return {name: value for name, value in asdict(config).items() if repr(value) != usual[name]}


def own_fields(method: str) -> dict[str, Any]:
    """The fields that make the method what it is."""
    return METHODS[method]


def field_names(method: str) -> set[str]:
    """Every field of the method's config. Raises ValueError for an unknown method."""
    return {f.name for f in fields(config_class(method))}
