"""The class that every table of the configuration, a plugin's options included, is made from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Options"]


class Options(BaseModel):
    """Named, typed values with defaults.  The string below an attribute is its help text.

    Frozen; a key that is not declared is a fault.  Use the types of `mailserver.config` for sizes, times, networks,
    domains, addresses and paths.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)
