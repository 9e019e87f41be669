"""How a component is made, started and ended, and what any of them may provide besides its kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from zope.interface import Attribute, Interface

from mailserver.interfaces.services import Services

__all__ = [
    "Argument",
    "CannotDo",
    "ComponentCommand",
    "IAccountFollower",
    "ICommands",
    "IComponent",
    "IComponentFactory",
    "ICounting",
    "IPeriodic",
    "IPrivilegedComponent",
    "IReloading",
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
        """Called once before the first listener opens, or at the reload that has brought the component.

        An error stops the start (or the reload), and so does one that takes longer than `limits.start_seconds`.
        """

    def stop() -> Awaitable[None]:
        """Called once: when the server stops, or after a reload that has replaced the component; also after a failed `start`.

        First the messages, logins and judgements that began with it come to their end, within `limits.shutdown_seconds`.  The
        call itself is waited for as long as `limits.stop_seconds`.
        """


class IReloading(Interface):
    """Optional, beside `IComponent`: a component that has read something at its start.

    A reload keeps every component whose table says the same as before, with its ports and its state.
    """

    def reload() -> Awaitable[None]:
        """Called at each reload that keeps the component.  Read again what may have changed: files, a database's form.

        An error, or one that takes longer than `limits.start_seconds`, ends the reload; the component goes on as it was.
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


class IAccountFollower(Interface):
    """Optional: a component that keeps something of users by their addresses, and follows when accounts are renamed or removed.

    A name is an address in the form in which addresses are compared (`mailserver.api.normal_names`), or ``@example.org``: the
    domain, with all addresses in it.  What is kept of `alice+detail@example.org` is alice's.

    Every call has five minutes.  It may come again for the same names, also after a crash in the middle of it: then it
    does what is left to do.  Without a server the command line builds the component, calls `start`, asks it, and calls `stop`.
    """

    def accounts_renamed(accounts: Mapping[str, str], stage: Literal["begin", "complete", "undo"]) -> Awaitable[None]:
        """`accounts` are the new names by the old ones.

        *begin*: what is kept of each old name holds for the new one, too.  An error stops the rename, and *undo* comes.
        *complete*: it is the new one's alone, and nothing is left of the old one; what the new one has by now stands.
        *undo*: the new one does not have it after all; the old one keeps it.
        """

    def account_removed(account: str) -> Awaitable[None]:
        """The user has left, and his mail is removed: forget all that is kept of him."""

    def kept_of_account(account: str) -> Awaitable[int]:
        """How many records are kept of this name, 0 for nothing."""


class IPeriodic(Interface):
    """Optional: a component that has something to do from time to time."""

    interval_seconds = Attribute("From the end of one run to the next, 0.1 or more.  The first comes within a minute.")
    deadline_seconds = Attribute("How long a run may take; then it is cancelled and has failed.")

    def run_periodically() -> Awaitable[None]:
        """One run, in the reactor's thread.  Never two at once.

        A failure is logged and shown; the next run comes all the same.
        """


class CannotDo(Exception):
    """What a component's command raises to say no: the words are for the person who typed it."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a component's command, as the command line asks for it.

    With `required` it is a word in its place, else an option ``--name VALUE`` (``--name`` alone for *flag*), which is left out
    of the call where it is not typed.  `choices`, where there are any, are the only values.
    """

    name: str
    help: str
    kind: Literal["text", "integer", "number", "flag"] = "text"
    required: bool = True
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ComponentCommand:
    """A command of a component: ``mailserver NAME COMMAND``.

    `run(**arguments)` returns an Awaitable of the answer: a text, a list of texts (lines), a mapping (name and value), a list of
    mappings (a table), None for "done"; of values that JSON holds, a mebibyte at most.  It raises `CannotDo` to say no.
    """

    name: str
    summary: str
    run: Callable[..., Awaitable[object]]
    arguments: tuple[Argument, ...] = ()
    deadline_seconds: float = 30.0


class ICommands(Interface):
    """Optional: a component that people can give orders while the server runs: ``mailserver NAME COMMAND``.

    NAME is what the configuration calls the component.  Who may use the control socket may use them: root and the server's user.
    """

    def commands() -> Sequence[ComponentCommand]:
        """The same ones each time."""
