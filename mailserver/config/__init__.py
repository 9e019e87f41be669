"""The configuration file.

`load` reads it, `Configuration` is what it says, `Options` is the class from which plugins derive their own tables.

The names are looked up when they are imported: most commands need one that is small, and the schema takes a while to build.

In the order in which they are read:

* `schema`: every table and key of the configuration file, with its type, its default and its meaning
* `next_hop`: the keys that say how another host is reached, shared by tables
* `route_table`: exceptions from the relay's one way, by recipient and sender
* `tls_options`: keys and certificates of the listeners
* `traces_table`: where the roads of messages go as traces
* `web_table`: what is served over HTTP, and by whom
* `web_facts`: what `web` listeners say of the domains, as the whole configuration has it
* `acme_table`: the CA from which the server gets its certificates
* `acme_endpoints`: where the server listens by itself while a CA looks
* `policy_table`: what becomes of copies that are not simply delivered
* `forward_table`: mail that aliases send on to other hosts
* `limits`: the table of bounds
* `values`: the types of configuration values: what a person writes in TOML, and what the server gets
* `quantities`: sizes and times as people write them
* `endpoints`: the syntax of endpoint strings, checked without opening anything
* `options`: the base class of every table, a plugin's options included
* `defaults`: values that a command needs without the schema, which takes its time to import
* `document`: from a file's octets to a TOML document of bearable size
* `lines`: where each key of a TOML text stands
* `fault`: one fault of a configuration, and the exception that holds all of them
* `fault_sentences`: faults in words: file, line, key and a sentence
* `filter_order`: in which order filters are asked, and what they are called
* `former_keys`: tables whose names have changed; the former name is understood
* `reading`: from a TOML file to a `Configuration`, or to a list of all its faults
* `glance`: the few keys that a command needs to ask the server, without the rest of the file
* `choice`: which configuration file is read; never one of the current folder
* `ownership`: whether nobody but root can change a file
* `password_file`: files with a password of ours for another server: a smarthost, a directory
* `draft`: a TOML text changed together with what it says; all around a change stays
* `editing`: a command's change to the configuration file, checked before it counts
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mailserver.former import former_names

if TYPE_CHECKING:
    from mailserver.config.fault import ConfigurationError, Fault
    from mailserver.config.options import Options
    from mailserver.config.reading import ComponentOptions, check_options, load, parse
    from mailserver.config.schema import (
        AccountsTable,
        Configuration,
        DeliveryTable,
        DNSTable,
        DomainTable,
        FilterTable,
        LimitsTable,
        ListenTable,
        LogTable,
        PatternTable,
        PickupTable,
        QueueTable,
        RelayTable,
        TLSTable,
    )
    from mailserver.config.values import (
        Count,
        DomainKey,
        DomainName,
        Duration,
        Endpoint,
        FilePath,
        HostName,
        MailAddress,
        NameServer,
        Network,
        Size,
        SocketPath,
    )

__all__ = [
    "DNSTable",
    "TLSTable",
    "AccountsTable",
    "ComponentOptions",
    "Configuration",
    "ConfigurationError",
    "Count",
    "DeliveryTable",
    "DomainTable",
    "DomainKey",
    "DomainName",
    "PickupTable",
    "Duration",
    "Endpoint",
    "Fault",
    "FilePath",
    "FilterTable",
    "HostName",
    "LimitsTable",
    "ListenTable",
    "LogTable",
    "MailAddress",
    "NameServer",
    "Network",
    "Options",
    "PatternTable",
    "QueueTable",
    "RelayTable",
    "Size",
    "SocketPath",
    "check_options",
    "load",
    "parse",
]

LIGHT = {"ConfigurationError": "fault", "Fault": "fault", "Options": "options"}
READING = ("ComponentOptions", "check_options", "load", "parse")
VALUES = (
    "Count",
    "DomainKey",
    "DomainName",
    "Duration",
    "Endpoint",
    "FilePath",
    "HostName",
    "MailAddress",
    "NameServer",
    "Network",
    "Size",
    "SocketPath",
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        return former_names(__name__)(name)
    module = LIGHT.get(name) or ("reading" if name in READING else "values" if name in VALUES else "schema")
    return getattr(importlib.import_module(f"mailserver.config.{module}"), name)
