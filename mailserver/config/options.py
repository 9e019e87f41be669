"""The class that every table of the configuration, a plugin's options included, is made from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["NOT_A_KEY", "Options", "keys_of"]

NOT_A_KEY = "(not a key)"  # the alias of an attribute that the file cannot set


class Options(BaseModel):
    """Named, typed values with defaults.  The string below an attribute is its help text.

    Frozen; a key that is not declared is a fault.  Use the types of `mailserver.config` for sizes, times, networks,
    domains, addresses and paths.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


def keys_of(model: type[Options]) -> list[str]:
    """The keys that a table may have."""
    return [name for name, field in model.model_fields.items() if field.validation_alias != NOT_A_KEY]
