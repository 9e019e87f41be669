"""Counters out of the steps of roads: who counts them need not be told anything else.

Each is counted when it is noted, also one that then comes too fast to be written: so the counters are exact, and a
connection's service is known from its first step until its last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mailserver.metrics.counters import Counters

__all__ = ["Meter"]

CONNECTIONS_MOST = 100_000
LOCAL = "local"
MILLISECONDS = 0.001
OUTCOMES = {"delivered": "delivered", "deferred": "delayed", "failed": "failed", "discarded": "discarded"}


class Meter:
    """Counts into `figures`."""

    def __init__(self, figures: Counters) -> None:
        self._figures = figures
        self._services: dict[str, str] = {}
        self._by_step: Mapping[str, Callable[[str, Mapping[str, Any]], None]] = {
            "connected": self._connected,
            "closed": self._closed,
            "rejected": self._rejected,
            "timeout": self._timeout,
            "encrypted": self._encrypted,
            "handshake_failed": self._handshake_failed,
            "login": self._login,
            "login_failed": self._login_failed,
            "accepted": self._accepted,
            "refused": self._refused,
            "filter": self._filter,
            "reported": self._reported,
        }

    def take(self, id: str, step: str, fields: Mapping[str, Any]) -> None:
        """A step as it was noted."""
        if step in OUTCOMES:
            self._outcome(step, fields)
        elif step in self._by_step:
            self._by_step[step](id, fields)

    # --- connections ---

    def _connected(self, id: str, fields: Mapping[str, Any]) -> None:
        service = str(fields.get("service", ""))
        if len(self._services) < CONNECTIONS_MOST:
            self._services[id] = service
        self._figures.count("connections_total", service)

    def _closed(self, id: str, fields: Mapping[str, Any]) -> None:
        self._services.pop(id, None)

    def _rejected(self, id: str, fields: Mapping[str, Any]) -> None:
        self._figures.count("connections_rejected_total", self._services.get(id, ""), code_of(fields))

    def _timeout(self, id: str, fields: Mapping[str, Any]) -> None:
        self._figures.count("connection_timeouts_total", self._services.get(id, ""))

    def _encrypted(self, id: str, fields: Mapping[str, Any]) -> None:
        version, group = str(fields.get("version", "")), str(fields.get("group", ""))
        self._figures.count("tls_handshakes_total", "client", version, group, "success")

    def _handshake_failed(self, id: str, fields: Mapping[str, Any]) -> None:
        self._figures.count("tls_handshakes_total", "client", "", "", "failed")

    def _login(self, id: str, fields: Mapping[str, Any]) -> None:
        self._figures.count("logins_total", str(fields.get("method", "")), "success")

    def _login_failed(self, id: str, fields: Mapping[str, Any]) -> None:
        method, colon, _ = str(fields.get("why", "")).partition(":")
        self._figures.count("logins_total", method if colon and method.isupper() else "", "failed")

    # --- messages ---

    def _accepted(self, id: str, fields: Mapping[str, Any]) -> None:
        figures = self._figures
        service = self._services.get(str(fields.get("connection", "")), LOCAL)
        figures.count("messages_received_total", service)
        figures.count("recipients_received_total", service, by=len(fields.get("recipients") or ()))
        figures.count("received_bytes_total", service, by=float(fields.get("size") or 0))

    def _refused(self, id: str, fields: Mapping[str, Any]) -> None:
        service = self._services.get(str(fields.get("connection", "")), LOCAL)
        self._figures.count("refusals_total", service, str(fields.get("stage", "")), code_of(fields))

    def _filter(self, id: str, fields: Mapping[str, Any]) -> None:
        figures, name = self._figures, str(fields.get("filter", ""))
        if "ms" in fields:
            figures.observe("filter_seconds", float(fields["ms"]) * MILLISECONDS, name)
        if fields.get("verdict"):
            figures.count("filter_verdicts_total", name, str(fields["verdict"]))
        if fields.get("error"):
            figures.count("filter_errors_total", name)

    def _outcome(self, step: str, fields: Mapping[str, Any]) -> None:
        self._figures.count("deliveries_total", OUTCOMES[step])
        if step == "delivered" and "ms" in fields:
            self._figures.observe("delivery_seconds", float(fields["ms"]) * MILLISECONDS)

    def _reported(self, id: str, fields: Mapping[str, Any]) -> None:
        self._figures.count("reports_total", str(fields.get("condition", "")))


def code_of(fields: Mapping[str, Any]) -> str:
    """The code of a reply in words, "" where there is none."""
    code = str(fields.get("reply", ""))[:3]
    return code if len(code) == 3 and code.isascii() and code.isdigit() else ""
