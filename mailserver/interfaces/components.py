"""How a component is made, started and ended, and what any of them may provide besides its kind."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from zope.interface import Attribute, Interface

from mailserver.interfaces.services import Services

__all__ = [
    "IComponent",
    "IComponentFactory",
    "ICounting",
    "IPrivilegedComponent",
    "ISweeping",
]


class IComponentFactory(Interface):
    """Makes a component from its options.  Cheap: no I/O, neither at import nor in `build`."""

    name = Attribute("The name that the configuration uses, such as 'denylist'.  Unique for each interface provided.")
    summary = Attribute("One line for `mailserver plugins`.")
    provides = Attribute("The interface of this module that the component provides, or a tuple of several.")
    options = Attribute("A subclass of `mailserver.config.Options` (pydantic): names, types, defaults and help of the options.")

    api_version = Attribute(
        'The plugin API that it was written for: `"1.0"`, or a range such as `">=1.0,<2"`.  Without one it counts as of 0.1, '
        "which runs behind an adapter and is warned of."
    )

    def build(options: Any, services: Services) -> object:
        """Return the component.  `options` is a checked instance of the class `options`."""


class IComponent(Interface):
    """Optional: a component that has a life."""

    def start() -> Awaitable[None]:
        """Called once before the first listener opens.  An error stops the start, and so does one that takes two minutes."""

    def stop() -> Awaitable[None]:
        """Called once: when the server stops, or after a reload that has replaced the component.

        First the messages, logins and judgements that began with it come to their end, within `limits.shutdown_seconds`.  The
        call itself is waited for twenty seconds.
        """


class IPrivilegedComponent(Interface):
    """Optional: a component that needs, for a moment, the identity that the server was started with."""

    def start_privileged() -> None:
        """Called once, before the privileges are dropped and before `start`.  No reactor runs yet."""


class ISweeping(Interface):
    """Optional: a component that leaves something behind when it is cut off."""

    def sweep() -> Awaitable[int]:
        """Called once a day.  Remove what is left behind; return how many things that were."""


class ICounting(Interface):
    """Optional: a component that can say in figures how it works."""

    def counts() -> Mapping[str, int | float]:
        """Figures since the start, by short names.  Cheap, without side effects."""
