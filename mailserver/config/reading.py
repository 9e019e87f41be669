"""From a TOML file to a `Configuration`, or to a list of all its faults."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from mailserver.config.document import FILE_OCTETS, parse_document, read_document
from mailserver.config.endpoints import EndpointPlace, place_of
from mailserver.config.fault import ConfigurationError, Fault
from mailserver.config.fault_sentences import close_to, key_text, sentences
from mailserver.config.filter_order import filter_names, order_faults
from mailserver.config.former_keys import FORMER_TABLES, with_present_names
from mailserver.config.lines import KeyPath, line_of, lines_of
from mailserver.config.options import Options, keys_of
from mailserver.config.route_table import NextHop, RouteTable, next_hop_of, next_hop_of_relay, route_clashes
from mailserver.config.schema import (
    AccountsTable,
    Component,
    Configuration,
    DeliveryTable,
    FilterTable,
    QueueTable,
    RelayTable,
    RouterTable,
)
from mailserver.config.values import domain_key, host_name
from mailserver.mail.route_map import ANY

__all__ = ["ComponentOptions", "UselessKeys", "check_options", "load", "parse"]

SECTIONS: Mapping[str, type[Component]] = {
    "accounts": AccountsTable,
    "router": RouterTable,
    "delivery": DeliveryTable,
    "relay": RelayTable,
    "filter": FilterTable,
}
ROUTED = ("mx", "smarthost", "none")
NO_COMPONENT = frozenset({("relay", "none"), ("router", "domains")})


class ComponentOptions(Protocol):
    """Finds the options class of a component: `mailserver.plugins.catalogue.Catalogue.options_of`."""

    def __call__(self, section: str, name: str) -> type[Options]:
        """Return the class.  `section` is ``accounts``, ``router``, ``delivery``, ``relay`` or ``filter``.

        Raises LookupError with a sentence for an unknown component.
        """


class UselessKeys(Protocol):
    """Knows a component's kind: `mailserver.plugins.catalogue.Catalogue.useless_keys`."""

    def __call__(self, section: str, name: str) -> Mapping[str, str]:
        """Keys of the core that have no effect for this component, each with a sentence.  Raises LookupError as above."""


def load(
    path: str | os.PathLike[str],
    options_of: ComponentOptions | None = None,
    useless_keys: UselessKeys | None = None,
) -> Configuration:
    """Read and check a configuration file.

    `options_of` checks each component's own keys; without it they are kept as plain mappings in `options`.  `useless_keys` says
    which of the core's keys have no effect for a component: one that is there is a fault.  Relative paths count from the file's
    folder.  Raises `ConfigurationError` with every fault.
    """
    file = os.fspath(path)
    try:
        with open(file, "rb") as source:
            octets = source.read(FILE_OCTETS + 1)
    except OSError as error:
        raise ConfigurationError([Fault(file, 1, "", f"cannot be read: {error.strerror}")]) from error
    return _checked(read_document(octets, file), file, os.path.dirname(os.path.abspath(file)), options_of, useless_keys)


def parse(
    text: str,
    *,
    file: str,
    directory: str,
    options_of: ComponentOptions | None = None,
    useless_keys: UselessKeys | None = None,
) -> Configuration:
    """As `load`, for a text; `file` is its name in faults, `directory` the folder that relative paths count from."""
    return _checked(parse_document(text, file), file, directory, options_of, useless_keys)


def _checked(
    read: tuple[str, dict[str, Any]] | Fault,
    file: str,
    directory: str,
    options_of: ComponentOptions | None,
    useless_keys: UselessKeys | None,
) -> Configuration:
    if isinstance(read, Fault):
        raise ConfigurationError([read])
    text, document = read
    return _Reading(document, text, file, directory).result(options_of, useless_keys)


def check_options(model: type[Options], table: Mapping[str, Any], directory: str | None = None) -> Options:
    """Make an options object of a TOML table.  Raises pydantic's `ValidationError`.

    The way over JSON gives pydantic's strict mode with lists for tuples: a number in quotes is a fault, not a number.
    """
    return model.model_validate_json(json.dumps(table, default=str), strict=True, context={"directory": directory})


class _Reading:
    """One file on its way; collects faults from the core's tables and from each component's."""

    def __init__(self, document: dict[str, Any], text: str, file: str, directory: str) -> None:
        self.document, self.former = with_present_names(document)
        self.file = file
        self.directory = directory
        self.lines = lines_of(text)
        self.faults: list[Fault] = []

    def result(self, options_of: ComponentOptions | None, useless_keys: UselessKeys | None) -> Configuration:
        core, components = _split(self.document)
        for old, now in FORMER_TABLES.items():
            if old in core:
                del core[old]
                self.fault((old,), f"is the former name of {now}, which is there, too: keep one of them")
        configuration = self.checked((), Configuration, core)
        options = {
            place: self.component_options(place, use, table, options_of) for place, (use, table) in components.items()
        }
        self.check_endpoints(core.get("listen"))
        self.check_domains(core.get("domain"))
        self.check_filters(core.get("filter"), useless_keys)
        if isinstance(configuration, Configuration) and options_of is not None and not self.faults:
            self.check_routes(configuration, options[("relay",)])
        if self.faults or not isinstance(configuration, Configuration):
            raise ConfigurationError(self.faults)
        return _joined(configuration, options, self.directory)

    def component_options(
        self, place: KeyPath, use: Any, table: Mapping[str, Any], options_of: ComponentOptions | None
    ) -> Any:
        section = str(place[0])
        if options_of is None or not isinstance(use, str):
            return dict(table)
        if (section, use) in NO_COMPONENT:
            return self.checked(place, Options, table)
        try:
            model = options_of(section, use)
        except LookupError as error:
            self.fault((*place, "use"), str(error.args[0]))
            return None
        return self.checked(place, model, table)

    def check_endpoints(self, listeners: Any) -> None:
        """Find two listeners on one port, which else only the start would find."""
        seen: list[tuple[EndpointPlace, int]] = []
        for index, listen in enumerate(listeners if isinstance(listeners, list) else ()):
            endpoint = listen.get("endpoint") if isinstance(listen, Mapping) else None
            place = place_of(endpoint) if isinstance(endpoint, str) else None
            if place is None:
                continue
            for other, first in seen:
                if place.clashes_with(other):
                    self.fault(("listen", index, "endpoint"), f"is the endpoint of listen[{first}], too")
                    break
            else:
                seen.append((place, index))

    def check_filters(self, filters: Any, useless_keys: UselessKeys | None) -> None:
        """Find names that are given twice, an order that cannot be, and keys that have no effect for a filter's kind."""
        tables = [table if isinstance(table, Mapping) else {} for table in filters] if isinstance(filters, list) else []
        for n, table in enumerate(tables):
            use = table.get("use")
            try:
                useless = useless_keys("filter", use) if useless_keys is not None and isinstance(use, str) else {}
            except LookupError:
                continue  # told with `use`
            for key in useless.keys() & table.keys():
                self.fault(("filter", n, key), useless[key])
        names = [(str(table.get("use", "")), table.get("name")) for table in tables]
        after = [table.get("after", ()) for table in tables]
        if all(name is None or isinstance(name, str) for _, name in names) and all(map(_are_texts, after)):
            for n, key, sentence in order_faults(filter_names(names), after):
                self.fault(("filter", n, key), sentence)

    def check_domains(self, domains: Any) -> None:
        """Find domains that are given twice, such as Example.org and example.org: the second would silently replace the first."""
        seen: dict[str, str] = {}
        for name in domains if isinstance(domains, Mapping) else ():
            try:
                first = seen.setdefault(domain_key(name), name)
            except ValueError:
                continue  # told with the key itself
            if first != name:
                self.fault(("domain", name), f"is the domain {first!r} in another spelling")
        by_key = {key: domains[name] for key, name in seen.items()}
        for name, table in domains.items() if isinstance(domains, Mapping) else ():
            other = table.get("same_as") if isinstance(table, Mapping) else None
            if isinstance(other, str):
                self.check_same_as(name, table, other, by_key)

    def check_same_as(self, name: str, table: Mapping[str, Any], other: str, domains: Mapping[str, Any]) -> None:
        """A domain with another's names: has none of its own, and the other is here and no such domain itself."""
        for key in table:
            if key not in ("same_as", "disabled"):
                self.fault(("domain", name, key), f"is without effect: with same_as, the names of {other} hold")
        try:
            key = host_name(other)
        except ValueError:
            return  # told with the value itself
        path = ("domain", name, "same_as")
        labels = key.split(".")
        names = [key, *["*." + ".".join(labels[n:]) for n in range(1, len(labels))]]
        found = next((one for one in names if one in domains), None)
        if found is None:
            self.fault(path, f"{other} is not among the domains" + close_to(key, list(domains)))
        elif isinstance(domains[found], Mapping) and "same_as" in domains[found]:
            self.fault(path, f"{other} is itself the same as another: name that one")

    def check_routes(self, configuration: Configuration, relay_options: Any) -> None:
        """Find routes that contradict each other, and those that do not fit together with `[relay]` and `[queue]`."""
        routes, use = configuration.route, configuration.relay.use
        if routes and use not in ROUTED:
            self.fault(("route", 0), f'needs [relay] use = "mx", "smarthost" or "none": "{use}" knows no routes')
            return
        for clash in route_clashes(routes):
            key = "domain" if clash.domain != ANY else "sender"
            whom = " and ".join(
                [f'{what} "{value}"' for what, value in (("domain", clash.domain), ("sender", clash.sender)) if value != ANY]
            )
            first = line_of(("route", clash.first), self.lines)
            self.fault(("route", clash.second, key), f"{whom} has a route already, route[{clash.first}] in line {first}")
        relay = next_hop_of_relay(use, relay_options)
        for n, route in enumerate(routes):
            self.check_route(("route", n), route, relay, configuration.queue)

    def check_route(self, place: KeyPath, route: RouteTable, relay: NextHop | None, queue: QueueTable) -> None:
        try:
            if route.use != "none":
                next_hop_of(route, relay)
        except ValidationError as error:
            for path, sentence in sentences(error, RouteTable, {}):
                self.fault(place + path, sentence)
        except ValueError as error:
            self.fault(place, str(error))
        if (route.warn or queue.warn) > (route.expire or queue.expire):
            key = "warn" if route.warn is not None else "expire"
            self.fault((*place, key), "warn is later than expire, so that nobody would ever be warned")

    def checked(self, place: KeyPath, model: type[Options], table: Mapping[str, Any]) -> Options | None:
        try:
            return check_options(model, table, self.directory)
        except ValidationError as error:
            known = SECTIONS.get(str(place[0])) if place else None
            for path, sentence in sentences(error, model, table, also_known=known):
                self.fault(place + path, sentence)
            return None

    def fault(self, path: KeyPath, message: str) -> None:
        """Note a fault, under the names that the file has."""
        if path:
            path = (self.former.get(str(path[0]), path[0]), *path[1:])
        self.faults.append(Fault(self.file, line_of(path, self.lines), key_text(path), message))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _split(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[KeyPath, tuple[Any, dict[str, Any]]]]:
    """The core's keys, and by place what belongs to components: the name used and its own keys."""
    core = dict(document)
    components: dict[KeyPath, tuple[Any, dict[str, Any]]] = {}

    def divide(place: KeyPath, table: Any, section: type[Component]) -> Any:
        if not isinstance(table, Mapping):
            return table
        known = set(keys_of(section))
        field = section.model_fields["use"]
        own = {key: value for key, value in table.items() if key not in known}
        components[place] = (table.get("use", None if field.is_required() else field.default), own)
        return {key: value for key, value in table.items() if key in known}

    for name, section in SECTIONS.items():
        table = document.get(name, None if name == "filter" else {})
        if isinstance(table, list):
            core[name] = [divide((name, n), element, section) for n, element in enumerate(table)]
        elif name != "filter":
            core[name] = divide((name,), table, section)
    return core, components


def _joined(configuration: Configuration, options: Mapping[KeyPath, Any], directory: str) -> Configuration:
    """The configuration with what no key says: each component's options, and the folder."""
    parts: dict[str, Any] = {"directory": directory} | {
        name: getattr(configuration, name).model_copy(update={"options": options[(name,)]})
        for name in SECTIONS
        if name != "filter"
    }
    parts["filter"] = tuple(
        filter.model_copy(update={"options": options[("filter", n)]}) for n, filter in enumerate(configuration.filter)
    )
    return configuration.model_copy(update=parts)
