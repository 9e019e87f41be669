"""Where the server listens by itself while a CA looks (ACME)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailserver.config.endpoints import place_of

if TYPE_CHECKING:
    from mailserver.config.acme_table import AcmeTable
    from mailserver.config.schema import Configuration

__all__ = ["own_endpoints"]

PORTS = {"http-01": 80, "tls-alpn-01": 443}


def own_endpoints(configuration: Configuration) -> tuple[str, ...]:
    """Where the server itself listens while a CA looks; none where others show it what it looks for."""
    table = configuration.by_acme
    if table is None or table.folder is not None or table.challenge not in PORTS:
        return ()
    if table.endpoint is not None:
        return (table.endpoint,)
    return () if _web_listens(configuration, table) else tuple([f"{kind}:{PORTS[table.challenge]}" for kind in ("tcp6", "tcp")])


def _web_listens(configuration: Configuration, table: AcmeTable) -> bool:
    """Whether a web listener shows it: one without TLS for http-01, one with TLS for tls-alpn-01."""
    has_tls = table.challenge == "tls-alpn-01"
    return any((one.tls != "none") is has_tls and place_of(one.endpoint) is not None for one in configuration.web_listeners)
