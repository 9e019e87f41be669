"""Finds components by name and builds them.

A factory (`mailserver.interfaces.IComponentFactory`) is a public object of a module in the package ``twisted.plugins``, or
what an entry point of the group ``mailserver.plugins`` names.  Twisted's own `getPlugins` is not used: it hides the import
error of a plugin module, so that a configured filter could vanish in silence.  `discover` imports each module itself and
keeps the tracebacks, and a configured name that is not found stops the start, with those tracebacks in the message.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.python.reflect import safe_str
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject

from mailserver.interfaces import (
    IAttemptFilter,
    IComponentFactory,
    IContentFilter,
    IDelivery,
    IDirectory,
    IExtension,
    IHosts,
    IModifier,
    IObserver,
    IPeerEnd,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    IReportPolicy,
    IRouter,
    IScorer,
    ISenderFilter,
    ISigner,
    ITransactionEnd,
    Services,
)
from mailserver.plugins.awaiting import FAULTS
from mailserver.plugins.failure_log import words_of
from mailserver.plugins.former_plugins import for_former_plugin
from mailserver.plugins.versions import API_VERSION, FORMER, WrongVersion, is_former, require_api

if TYPE_CHECKING:
    from mailserver.config import Options

__all__ = [
    "ENTRY_POINTS",
    "SECTIONS",
    "BrokenPlugin",
    "Catalogue",
    "FoundPlugin",
    "PluginError",
    "Shipped",
    "UnknownComponent",
    "build_component",
    "discover",
    "former_warning",
    "options_class",
]

ENTRY_POINTS = "mailserver.plugins"
FILTERS = (
    IPeerFilter,
    ISenderFilter,
    IRecipientFilter,
    IContentFilter,
    IRecipientContentFilter,
    IScorer,
    IModifier,
    ISigner,
    IObserver,
    ITransactionEnd,
    IPeerEnd,
    IExtension,
    IAttemptFilter,
    IHosts,
    IReportPolicy,
)
# Which interfaces a table of the configuration can use.
SECTIONS: Mapping[str, tuple[InterfaceClass, ...]] = types.MappingProxyType(
    {"accounts": (IDirectory,), "router": (IRouter,), "delivery": (IDelivery,), "relay": (IDelivery,), "filter": FILTERS}
)
# Keys of `[[filter]]` beside `use` and `name`, and for which kinds each has an effect.
ASKED = frozenset({"services", "on_error", "deadline", "after", "mode", "log_passes", "failures", "failure_window", "pause"})
FILTER_KEYS = ASKED | {"skippable", "hard", "name"}
KEYS_OF_KINDS: Mapping[InterfaceClass, frozenset[str]] = types.MappingProxyType(
    {
        **dict.fromkeys(
            (IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter, IRecipientContentFilter, IScorer), FILTER_KEYS
        ),
        IModifier: ASKED,
        ISigner: ASKED,
        ITransactionEnd: frozenset({"services", "deadline"}),
        IPeerEnd: frozenset({"services", "deadline"}),
        IExtension: frozenset({"services", "deadline"}),
        **dict.fromkeys((IAttemptFilter, IHosts, IReportPolicy), ASKED - {"services", "after", "log_passes"}),
    }
)
# Twisted's own modules hold nothing for us; importing them would cost more time than all the rest of the search.
TWISTED_OWN = frozenset(
    "cred_anonymous cred_file cred_memory cred_sshkeys cred_unix twisted_conch twisted_core twisted_ftp twisted_inet "
    "twisted_mail twisted_names twisted_portforward twisted_reactors twisted_runner twisted_socks twisted_trial "
    "twisted_web twisted_words".split()
)
INTERFACES = (*FILTERS, IDirectory, IDelivery, IRouter)


class PluginError(Exception):
    """A plugin breaks its contract.  The words name it and say how."""


class UnknownComponent(PluginError, LookupError):
    """No component, or more than one, has the name."""


@dataclass(frozen=True, slots=True)
class FoundPlugin:
    """A factory and where it comes from: ``twisted.plugins.name`` or ``package: entry point name``."""

    factory: Any
    source: str

    @property
    def name(self) -> str:
        """The name that the configuration uses."""
        return str(self.factory.name)

    @property
    def provides(self) -> tuple[InterfaceClass, ...]:
        """The interfaces of its component."""
        return _interfaces_of(self.factory)

    @property
    def api_version(self) -> str:
        """What it was written for, as it says; "0.1" where it says nothing."""
        return FORMER if is_former(self.factory) else str(self.factory.api_version)

    def is_a(self, interface: InterfaceClass) -> bool:
        """The component provides the interface, or one that extends it."""
        return any(one.isOrExtends(interface) for one in self.provides)


@dataclass(frozen=True, slots=True)
class BrokenPlugin:
    """A plugin that could not be used; `why` is a sentence or a traceback."""

    source: str
    why: str


@implementer(IComponentFactory)
@dataclass(frozen=True, slots=True)
class Shipped:
    """A factory whose code is imported when it is wanted: ``twistd --help`` asks for all plugins and must stay quick.

    `target` is ``module:object``: the real factory, or its class.
    """

    name: str
    summary: str
    provides: tuple[InterfaceClass, ...]
    target: str
    api_version: str = API_VERSION

    @property
    def options(self) -> type[Options]:
        """The class of the options."""
        return self._real().options  # type: ignore[no-any-return]

    @property
    def replays(self) -> bool:
        """Whether `mailserver replay` may ask it."""
        return bool(getattr(self._real(), "replays", False))

    def build(self, options: Any, services: Services) -> Any:
        """Return the component."""
        return self._real().build(options, services)

    def _real(self) -> Any:
        real = pkgutil.resolve_name(self.target)
        return real() if isinstance(real, type) else real


class Catalogue:
    """All factories that were found, by interface and name."""

    log = Logger()

    def __init__(self, found: Sequence[FoundPlugin], broken: Sequence[BrokenPlugin] = ()) -> None:
        self.found = tuple(found)
        self.broken = tuple(broken)
        self._warned_of: set[str] = set()

    def named(self, interfaces: Sequence[InterfaceClass], name: str) -> Any:
        """The one factory of this name for one of the interfaces.  Raises `UnknownComponent`."""
        able = [found for found in self.found if any(found.is_a(interface) for interface in interfaces)]
        hits = [found for found in able if found.name == name]
        if len(hits) == 1:
            return hits[0].factory
        if hits:
            sources = " and ".join(found.source for found in hits)
            raise UnknownComponent(f"the name {name!r} is used twice, by {sources}: remove one of them")
        from mailserver.config.fault_sentences import close_to

        names = sorted({found.name for found in able})
        known = (", ".join(names) or "none") + close_to(name, names)
        kind = _use(interfaces[0]).removeprefix("I").lower()
        message = f"there is no {kind} component {name!r}; known: {known}"
        for broken in self.broken:
            message += f"\nThe plugin {broken.source} could not be used:\n{broken.why.rstrip()}"
        raise UnknownComponent(message)

    def factory(self, section: str, name: str) -> Any:
        """The factory for ``use = name`` in a table of the configuration.  Raises `UnknownComponent`."""
        return self.named(SECTIONS[section], name)

    def build(self, section: str, name: str, options: Any, services: Services) -> Any:
        """Build what ``use = name`` names.  One that was written for a former plugin API is warned of, once.

        Raises `PluginError`.
        """
        factory = self.factory(section, name)
        component = build_component(factory, options, services)
        if is_former(factory) and name not in self._warned_of:
            self._warned_of.add(name)
            self.log.warn("{words}", words=former_warning(name))  # Twisted takes an event with a `warning` for one of Python
        return component

    def options_of(self, section: str, name: str) -> type[Options]:
        """The options class, as `mailserver.config.load` wants it.  Raises `UnknownComponent`."""
        factory = self.factory(section, name)
        try:
            options = options_class(factory)
        except PluginError as error:
            raise UnknownComponent(str(error)) from error
        taken = FILTER_KEYS & set(options.model_fields) if section == "filter" else ()
        if taken:
            keys = ", ".join(sorted(taken))
            raise UnknownComponent(f"{name!r} cannot be used: its options {keys} are keys of the server's own")
        return options

    def useless_keys(self, section: str, name: str) -> Mapping[str, str]:
        """Keys of the core that have no effect for a filter of this kind, each with a sentence.  Raises `UnknownComponent`."""
        if section != "filter":
            return {}
        interfaces = _interfaces_of(self.factory(section, name))
        useful = {
            key for known, keys in KEYS_OF_KINDS.items() if any(one.isOrExtends(known) for one in interfaces) for key in keys
        }
        kinds = ", ".join(sorted(one.__name__ for one in interfaces))
        return dict.fromkeys(FILTER_KEYS - useful - {"name"}, f"has no effect: {name!r} is {kinds}")

    def clashes(self) -> list[tuple[str, tuple[FoundPlugin, ...]]]:
        """Names that two factories claim for the same use."""
        claims: dict[tuple[str, str], list[FoundPlugin]] = {}
        for found in self.found:
            for use in {_use(interface) for interface in found.provides}:
                claims.setdefault((use, found.name), []).append(found)
        return [(name, tuple(founds)) for (_, name), founds in sorted(claims.items()) if len(founds) > 1]


def discover() -> Catalogue:
    """Import every plugin module and entry point; nothing that they raise ends the search."""
    found: list[FoundPlugin] = []
    broken: list[BrokenPlugin] = []
    for source, thing in (*_plugin_modules(broken), *_entry_points(broken)):
        try:
            _check(thing)
            if any(thing is known.factory for known in found):
                continue  # one object, found by both searches
            found.append(FoundPlugin(thing, source))
        except PluginError as error:
            broken.append(BrokenPlugin(source, str(error)))
    return Catalogue(found, broken)


def options_class(factory: Any) -> type[Options]:
    """The class of a factory's options.  Raises `PluginError`, with the traceback where the component cannot be imported."""
    from mailserver.config import Options

    try:
        options = factory.options
    except Exception as error:
        why = f"the component {factory.name!r} cannot be imported: {error}\n{traceback.format_exc()}"
        raise PluginError(why) from error
    if not (isinstance(options, type) and issubclass(options, Options)):
        raise PluginError(f"the options of {factory.name!r} are no subclass of mailserver.config.Options")
    return options


def build_component(factory: Any, options: Any, services: Services) -> Any:
    """Build a component and check that it is what the factory says.  Raises `PluginError`."""
    _check(factory)
    try:
        component = factory.build(options, for_former_plugin(services) if is_former(factory) else services)
    except FAULTS as error:
        raise PluginError(f"the component {factory.name!r} could not be built: {words_of(error)}") from error
    for interface in _interfaces_of(factory):
        try:
            verifyObject(interface, component)
        except FAULTS as error:  # `Invalid`, or whatever an attribute raises that is looked at
            words = safe_str(error)[:1000] if isinstance(error, Invalid) else words_of(error)
            raise PluginError(f"the component {factory.name!r} is no {interface.__name__}: {words}") from error
    return component


def former_warning(name: str) -> str:
    """What is said of a plugin that names no API version."""
    return (
        f"the plugin {name!r} was written for plugin API {FORMER}: it still runs, and no longer with API 2; "
        f"let its factory name the api_version (docs/plugins/changes.md)"
    )


def _use(interface: InterfaceClass) -> str:
    """What a name must be unique for: filters share one name space, each other kind has its own."""
    known = next(known for known in INTERFACES if interface.isOrExtends(known))
    return "filter" if known in FILTERS else str(known.__name__)


def _check(factory: Any) -> None:
    """Raises `PluginError` for what says that it is a factory and is not one."""
    try:
        name, summary, build, interfaces = factory.name, factory.summary, factory.build, _interfaces_of(factory)
    except Exception as error:
        raise PluginError(f"{type(factory).__name__} is no IComponentFactory: {error!r}") from error
    if not (isinstance(name, str) and name and isinstance(summary, str) and callable(build)):
        raise PluginError(
            f"{type(factory).__name__} is no IComponentFactory: name, summary or build is not what it must be"
        )
    try:
        require_api(factory)
    except WrongVersion as error:
        raise PluginError(str(error)) from error
    except Exception as error:  # the factory's own
        raise PluginError(f"{name!r} cannot say which plugin API it was written for: {error!r}") from error
    if not interfaces or not all(
        isinstance(one, InterfaceClass) and any(one.isOrExtends(known) for known in INTERFACES) for one in interfaces
    ):
        raise PluginError(f"{name!r} provides none of the interfaces of mailserver.interfaces that can be configured")


def _interfaces_of(factory: Any) -> tuple[Any, ...]:
    """What the factory's component provides."""
    provides = factory.provides
    return provides if isinstance(provides, tuple) else (provides,)


def _plugin_modules(broken: list[BrokenPlugin]) -> Iterator[tuple[str, Any]]:
    import twisted.plugins

    for module_info in sorted(pkgutil.iter_modules(twisted.plugins.__path__), key=lambda info: info.name):
        if module_info.name in TWISTED_OWN:
            continue
        source = f"twisted.plugins.{module_info.name}"
        try:
            module = importlib.import_module(source)
        except (Exception, SystemExit):  # noqa: BLE001  # whatever it is, it is kept and told
            broken.append(BrokenPlugin(source, traceback.format_exc()))
            continue
        yield from _factories_in(module, source)


def _entry_points(broken: list[BrokenPlugin]) -> Iterator[tuple[str, Any]]:
    for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        source = f"{entry.dist.name if entry.dist else '?'}: {entry.name} = {entry.value}"
        try:
            thing = entry.load()
        except (Exception, SystemExit):  # noqa: BLE001  # whatever it is, it is kept and told
            broken.append(BrokenPlugin(source, traceback.format_exc()))
            continue
        if isinstance(thing, types.ModuleType):
            yield from _factories_in(thing, source)
        elif IComponentFactory.providedBy(thing):
            yield source, thing
        else:
            broken.append(BrokenPlugin(source, f"{thing!r} does not provide IComponentFactory (it must be an instance)"))


def _factories_in(module: types.ModuleType, source: str) -> Iterator[tuple[str, Any]]:
    for name, thing in vars(module).items():
        if not name.startswith("_") and IComponentFactory.providedBy(thing):
            yield source, thing
