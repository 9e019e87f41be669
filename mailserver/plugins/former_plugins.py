"""What a plugin of API 0.1 is lent: the services as they were then.

Old import paths and the old names of outcomes are `mailserver.former`'s.
"""

from __future__ import annotations

from dataclasses import replace

from mailserver.interfaces import Services

__all__ = ["for_former_plugin"]


def for_former_plugin(services: Services) -> Services:
    """The services, with a state store whose `get` and `put` are called and not awaited."""
    former = getattr(getattr(services, "state", None), "former", None)  # whoever lends a state of another kind lends it as it is
    return services if former is None else replace(services, state=former())
