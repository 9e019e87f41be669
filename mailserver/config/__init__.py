"""The configuration file.

`load` reads it, `Configuration` is what it says, `Options` is the class from which plugins derive their own tables.
"""

from mailserver.config.faults import ConfigurationError, Fault
from mailserver.config.load import ComponentOptions, check_options, load, parse
from mailserver.config.options import Options
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
