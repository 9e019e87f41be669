"""The configuration file.

`load` reads it, `Configuration` is what it says, `Options` is the class from which plugins derive their own tables.

The names are looked up when they are imported: most commands need one that is small, and the schema takes a while to build.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailserver.config.fault import ConfigurationError, Fault
    from mailserver.config.options import Options
    from mailserver.config.reading import ComponentOptions, check_options, load, parse
    from mailserver.config.schema import (
        DNS,
        TLS,
        Accounts,
        Configuration,
        Delivery,
        Domain,
        Drop,
        Filter,
        Limits,
        Listen,
        Log,
        Pattern,
        Queue,
        Relay,
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
    "DNS",
    "TLS",
    "Accounts",
    "ComponentOptions",
    "Configuration",
    "ConfigurationError",
    "Count",
    "Delivery",
    "Domain",
    "DomainKey",
    "DomainName",
    "Drop",
    "Duration",
    "Endpoint",
    "Fault",
    "FilePath",
    "Filter",
    "HostName",
    "Limits",
    "Listen",
    "Log",
    "MailAddress",
    "NameServer",
    "Network",
    "Options",
    "Pattern",
    "Queue",
    "Relay",
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
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = LIGHT.get(name) or ("reading" if name in READING else "values" if name in VALUES else "schema")
    return getattr(importlib.import_module(f"mailserver.config.{module}"), name)
