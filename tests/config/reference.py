"""Writes docs/configuration.md from the schema: ``python -m tests.config.reference``."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mailserver.config import Configuration, Options, acme_table, schema, tls_options, values, web_table
from mailserver.config.options import keys_of
from mailserver.plugins.catalogue import FILTERS, discover

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
HEAD = """\
# Configuration

Every key with its type, its default and its meaning. This page is made from the code (`python -m tests.config.reference`).
[etc/mailserver.toml](../etc/mailserver.toml) is a sample to start from.

The file is TOML. `mailserver check` and the start name all faults at once, with file, line and key; an unknown key is a fault.

| written as | |
|---|---|
| size | octets, or text with a unit: `"512K"`, `"50M"`, `"2G"` (steps of 1024) |
| time | seconds, or text with units: `"30s"`, `"5m"`, `"1h30m"`, `"5d"` |
| network | `"192.0.2.0/24"`, `"2001:db8::/32"`, or one address |
| address | `"alice@example.org"` |
| name server | an IP address, with a port where it is not 53: `"127.0.0.1"`, `"127.0.0.1:5353"`, `"[::1]:5353"` |
| domain, host name | `"example.org"`; international names in either form |
| path | a relative one counts from the folder of the configuration file |
| endpoint | a Twisted endpoint string |
"""
TABLES: tuple[tuple[str, type[Options]], ...] = (
    ("[[listen]]", schema.ListenTable),
    ("[tls]", tls_options.TLSTable),
    ('[tls.name."…"]', tls_options.NamedCertificate),
    ("[web]", web_table.WebTable),
    ("[acme]", acme_table.AcmeTable),
    ("[authentication]", schema.AuthenticationTable),
    ("[lockout]", schema.LockoutTable),
    ("[submission]", schema.SubmissionTable),
    ("[privacy]", schema.PrivacyTable),
    ("[limits]", schema.LimitsTable),
    ("[accounts]", schema.AccountsTable),
    ("[router]", schema.RouterTable),
    ('[domain."example.org"]', schema.DomainTable),
    ('[[domain."example.org".pattern]]', schema.PatternTable),
    ("[delivery]", schema.DeliveryTable),
    ("[relay]", schema.RelayTable),
    ("[[route]]", schema.RouteTable),
    ("[dns]", schema.DNSTable),
    ("[queue]", schema.QueueTable),
    ("[forward]", schema.ForwardTable),
    ("[policy]", schema.PolicyTable),
    ("[pickup]", schema.PickupTable),
    ("[log]", schema.LogTable),
    ("[traces]", schema.TracesTable),
    ("[[filter]]", schema.FilterTable),
)
WORDS: tuple[tuple[Any, str], ...] = (
    (values.octets, "size"),
    (values.seconds, "time"),
    (values.network, "network"),
    (values.mail_address, "address"),
    (values.name_server, "name server"),
    (values.alias_member, "address or name"),
    (values.domain_name, "domain"),
    (values.domain_key, "domain"),
    (values.host_name, "host name"),
    (values.address_or_domain, "address or domain"),
    (values.fingerprint, "fingerprint"),
    (values.absolute_path, "path"),
    (values.checked_endpoint, "endpoint"),
)
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def page() -> str:
    """The whole page."""
    parts = [
        HEAD,
        "\n## At the top of the file\n\n",
        table(Configuration, [k for k in keys_of(Configuration) if not is_table(k)]),
    ]
    for title, model in TABLES:
        parts.append(f"\n## `{title}`\n\n{' '.join((model.__doc__ or '').split())}\n\n{table(model, keys_of(model))}")
        section = title.strip("[]")
        parts += [part for found in shipped(section) for part in component(section, found)]
    return "".join(parts)


def is_table(key: str) -> bool:
    return any(title.strip("[]").split(".")[0] == key for title, _ in TABLES)


def shipped(section: str) -> list[Any]:
    """The components of this house that the table can use."""
    ours = [found for found in discover().found if found.source == "twisted.plugins.mailserver_plugins"]
    return [found for found in ours if section == place_of(found)]


def place_of(found: Any) -> str:
    if found.name in ("capture", "mx", "smarthost"):
        return "relay"
    if any(found.is_a(interface) for interface in FILTERS):
        return "filter"
    return "accounts" if any(one.__name__ == "IDirectory" for one in found.provides) else "delivery"


def component(section: str, found: Any) -> list[str]:
    options = found.factory.options
    text = f'\n### `use = "{found.name}"`\n\n{found.factory.summary}\n'
    parts = [text, "\n" + table(options, keys_of(options)) if keys_of(options) else ""]
    for key, field in options.model_fields.items():
        inner = typing.get_args(field.annotation)[:1] if typing.get_origin(field.annotation) is tuple else ()
        if inner and isinstance(inner[0], type) and issubclass(inner[0], Options):
            words = " ".join((inner[0].__doc__ or "").split())
            parts.append(f"\n#### `[[{section}.{key}]]`\n\n{words}\n\n{table(inner[0], keys_of(inner[0]))}")
    return parts


def table(model: type[Options], keys: list[str]) -> str:
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        field = model.model_fields[key]
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(
            f"| `{key}` | {type_words(field.annotation, field.metadata)} | {default_words(field)} | {meaning} |"
        )
    return "\n".join(rows) + "\n"


def type_words(annotation: Any, metadata: Any = ()) -> str:
    for extra in metadata:
        for function, word in WORDS:
            if getattr(extra, "func", None) is function:
                return word
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_words(arguments[0], arguments[1:])
    if origin is tuple:
        return "list of " + type_words(arguments[0])
    if origin is dict:
        return f"table of {type_words(arguments[1])}"
    if origin is typing.Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if origin in (typing.Union, types.UnionType):
        return type_words(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, Options):
        return "table"
    return PLAIN[annotation]


def default_words(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
    if default is None or default in ((), {}, "") or default is PydanticUndefined:
        return "none"
    kind = type_words(field.annotation, field.metadata)
    return ", ".join(f"`{one_default(one, kind)}`" for one in (default if isinstance(default, tuple) else (default,)))


def one_default(value: Any, kind: str) -> str:
    if kind.endswith("time"):
        return next(
            (f"{value / unit:g}{name}" for name, unit in (("d", 86400), ("h", 3600)) if value and value % unit == 0),
            f"{value:g}s",
        )
    if kind.endswith("size"):
        return next(
            (
                f"{value >> shift}{name}"
                for name, shift in (("G", 30), ("M", 20), ("K", 10))
                if value and value % (1 << shift) == 0
            ),
            str(value),
        )
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page())
