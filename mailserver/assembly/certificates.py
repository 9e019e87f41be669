"""Makes the certificates of the listeners."""

from __future__ import annotations

import os

from mailserver.assembly.server import Server
from mailserver.config import Configuration
from mailserver.tls import Certificates, Pair, Sources, self_signed_pair

__all__ = ["make_certificates"]


def make_certificates(configuration: Configuration, server: Server) -> Certificates | None:
    """The certificates of the listeners, None where no listener for mail has TLS."""
    if all(listen.tls == "none" for listen in configuration.listen if listen.takes_mail):
        return None
    tls, own = configuration.tls, os.path.join(server.data, "tls")

    def sources() -> Sources:
        if tls.certificate is not None and tls.key is not None:
            pair = Pair(tls.certificate, tls.key)
        else:
            pair = self_signed_pair(own, configuration.hostname, ["127.0.0.1", "::1"])
        return Sources(
            pair,
            {name: Pair(one.certificate, one.key) for name, one in tls.name.items()},
            authorities=tls.client_authorities,
            revocations=tls.client_revocations,
            minimum_version=tls.minimum_version,
            ciphers=tls.ciphers,
        )

    return Certificates(sources=sources, clock=server.reactor, run_in_thread=server.pools.of("certificates"))
