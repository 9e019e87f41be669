"""Makes the certificates of the listeners."""

from __future__ import annotations

import os

from mailserver.assembly.server import Server
from mailserver.config import Configuration
from mailserver.tls import Certificates, IdentityError, Pair, Sources, self_signed_pair
from mailserver.tls.issued import issued_pair, read_issued

__all__ = ["make_certificates"]


def make_certificates(configuration: Configuration, server: Server) -> Certificates | None:
    """The certificates of the listeners, None where no listener for mail has TLS."""
    if all(listen.tls == "none" for listen in configuration.listen if listen.takes_mail):
        return None
    tls, own = configuration.tls, os.path.join(server.data, "tls")

    def sources() -> Sources:
        is_renewed = False
        if tls.certificate is not None and tls.key is not None:
            pair = Pair(tls.certificate, tls.key)
        elif configuration.by_acme is not None and _is_issued(configuration.keys_path):
            pair, is_renewed = issued_pair(configuration.keys_path, "mail"), True
        else:
            pair = self_signed_pair(own, configuration.hostname, ["127.0.0.1", "::1"])
        return Sources(
            pair,
            {name: Pair(one.certificate, one.key) for name, one in tls.name.items()},
            authorities=tls.client_authorities,
            revocations=tls.client_revocations,
            minimum_version=tls.minimum_version,
            ciphers=tls.ciphers,
            is_renewed=is_renewed,
        )

    return Certificates(sources=sources, clock=server.reactor, run_in_thread=server.pools.of("certificates"))


def _is_issued(keys_directory: str) -> bool:
    """Whether a CA has issued one that can be used.  Blocks."""
    try:
        return read_issued(keys_directory, "mail") is not None
    except IdentityError:  # another one is ordered, and that is told
        return False
