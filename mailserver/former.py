"""Names that have moved: the old ones are understood for one version more, and warn.

Plugins import from `interfaces`, `config`, `mail`, `smtp`, `sasl` and `testing`, and a server that runs while its program is
replaced starts its small processes by the names that it knows.  So a module of `MODULES` is found under its old name, too, and
`former_names` gives a module's old members.  Nothing of ours uses either: the test suite makes an error of each warning.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

__all__ = ["MODULES", "former_names", "understand"]

MODULES: Mapping[str, str] = {
    "mailserver.accounts.pam": "mailserver.authentication.pam",
    "mailserver.capturing": "mailserver.sink",
    "mailserver.capturing.answers": "mailserver.sink.answers",
    "mailserver.capturing.captured": "mailserver.sink.captured",
    "mailserver.capturing.connection": "mailserver.sink.connection",
    "mailserver.capturing.faults": "mailserver.sink.faults",
    "mailserver.capturing.server": "mailserver.sink.server",
    "mailserver.config.faults": "mailserver.config.fault_sentences",
    "mailserver.delivery.process": "mailserver.delivery.writer_process",
    "mailserver.mail.candidates": "mailserver.interfaces",
    "mailserver.mail.codec": "mailserver.mail.envelope_codec",
    "mailserver.mail.dropped": "mailserver.pickup.file_format",
    "mailserver.mail.lookup": "mailserver.mail.dns_records",
    "mailserver.mail.once": "mailserver.mail.cached",
    "mailserver.mail.recent": "mailserver.mail.recent_tags",
    "mailserver.root_reading": "mailserver.assembly.root_plan",
    "mailserver.smtp.buffer": "mailserver.smtp.server.buffer",
    "mailserver.smtp.client_auth": "mailserver.smtp.client.auth",
    "mailserver.smtp.client_content": "mailserver.smtp.client.content",
    "mailserver.smtp.client_dialogue": "mailserver.smtp.client.dialogue",
    "mailserver.smtp.client_events": "mailserver.smtp.client.events",
    "mailserver.smtp.client_limits": "mailserver.smtp.client.limits",
    "mailserver.smtp.client_offer": "mailserver.smtp.client.offer",
    "mailserver.smtp.client_replies": "mailserver.smtp.client.replies",
    "mailserver.smtp.client_request": "mailserver.smtp.client.request",
    "mailserver.smtp.client_states": "mailserver.smtp.client.states",
    "mailserver.smtp.client_transaction": "mailserver.smtp.client.transaction",
    "mailserver.smtp.commands": "mailserver.smtp.server.commands",
    "mailserver.smtp.data": "mailserver.smtp.server.data",
    "mailserver.smtp.extensions": "mailserver.smtp.server.extensions",
    "mailserver.smtp.limits": "mailserver.smtp.server.limits",
    "mailserver.smtp.parameters": "mailserver.smtp.server.parameters",
    "mailserver.smtp.refusals": "mailserver.smtp.server.refusals",
    "mailserver.smtp.states": "mailserver.smtp.server.states",
    "mailserver.smtp.transaction": "mailserver.smtp.server.transaction",
}
MEMBERS: Mapping[str, Mapping[str, str]] = {  # by the module's new name
    "mailserver.config": {
        "Accounts": "AccountsTable",
        "DNS": "DNSTable",
        "Delivery": "DeliveryTable",
        "Domain": "DomainTable",
        "Drop": "PickupTable",
        "Filter": "FilterTable",
        "Limits": "LimitsTable",
        "Listen": "ListenTable",
        "Log": "LogTable",
        "Pattern": "PatternTable",
        "Queue": "QueueTable",
        "Relay": "RelayTable",
        "TLS": "TLSTable",
    },
    "mailserver.config.endpoints": {
        "Place": "EndpointPlace",
    },
    "mailserver.config.lines": {
        "Part": "TablePart",
    },
    "mailserver.config.schema": {
        "Accounts": "AccountsTable",
        "Authentication": "AuthenticationTable",
        "DNS": "DNSTable",
        "Delivery": "DeliveryTable",
        "Domain": "DomainTable",
        "Drop": "PickupTable",
        "Filter": "FilterTable",
        "Limits": "LimitsTable",
        "Listen": "ListenTable",
        "Lockout": "LockoutTable",
        "Log": "LogTable",
        "Pattern": "PatternTable",
        "Privacy": "PrivacyTable",
        "Queue": "QueueTable",
        "Relay": "RelayTable",
        "Submission": "SubmissionTable",
        "TLS": "TLSTable",
    },
    "mailserver.mail.answers": {
        "Deferred": "Delayed",
    },
    "mailserver.mail.cached": {
        "once": "cached",
    },
    "mailserver.mail.mime_parts": {
        "Malformed": "MalformedMIME",
    },
    "mailserver.pickup.file_format": {
        "DropEnvelope": "PickupEnvelope",
        "DropFault": "PickupFault",
        "drop_name": "pickup_name",
        "is_drop_name": "is_pickup_name",
    },
    "mailserver.sink.answers": {
        "Action": "SinkAction",
        "Answers": "SinkAnswers",
    },
    "mailserver.sink.connection": {
        "Connection": "SinkConnection",
    },
    "mailserver.sink.faults": {
        "Refuse": "RefuseFault",
    },
    "mailserver.smtp.client.auth": {
        "Exchange": "AuthExchange",
    },
    "mailserver.smtp.client.transaction": {
        "Transaction": "ClientTransaction",
    },
    "mailserver.smtp.server.data": {
        "Content": "ContentReader",
    },
    "mailserver.smtp.server.parameters": {
        "Malformed": "MalformedParameters",
    },
    "mailserver.smtp.server.transaction": {
        "Transaction": "ServerTransaction",
    },
}


class _Moved:
    """Fills a module of the old name with what the new one has."""

    def __init__(self, new: str) -> None:
        self._new = new

    def create_module(self, spec: ModuleSpec) -> None:
        """As usual."""

    def exec_module(self, module: ModuleType) -> None:
        """Import the new one, and say so."""
        warnings.warn(f"{module.__name__} is now {self._new}", DeprecationWarning, stacklevel=2)
        new = importlib.import_module(self._new)
        members = MEMBERS.get(self._new, {})
        module.__dict__.update({name: value for name, value in vars(new).items() if not name.startswith("__")})
        module.__dict__.update({old: getattr(new, now) for old, now in members.items()})

    def get_code(self, name: str) -> CodeType:
        """What `python -m` runs: the new one, as a program."""
        source = f"import runpy\nrunpy.run_module({self._new!r}, run_name='__main__', alter_sys=True)\n"
        return compile(source, f"<{name}>", "exec")


class _Former:
    """Asked before all others: an update may leave an empty folder of the old name, and Python would take that for a package."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The old module, None for any other name."""
        new = MODULES.get(name)
        if new is None:
            return None
        is_package = any(other.startswith(f"{name}.") for other in MODULES)
        return ModuleSpec(name, _Moved(new), origin=new, is_package=is_package)  # type: ignore[arg-type]  # one by its methods


def understand() -> None:
    """Find the old names from now on."""
    if not any(isinstance(finder, _Former) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Former())


def former_names(module: str) -> Callable[[str], Any]:
    """A module's `__getattr__` for the members of `MEMBERS`."""

    def look_up(name: str) -> Any:
        now = MEMBERS.get(module, {}).get(name)
        if now is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is now {now}", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], now)

    return look_up
