"""Fetches the policy of MTA-STS from each address of its host, and looks at the certificate there.  Blocks, in a thread.

Senders fetch it by their own resolver and once; here it is wanted past all caches, also where the certificate is wrong: what
else is wrong shall be told in the same look.  So it is no use of `mailserver.fetching`, which ends with the first fault.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from mailserver.doctor.certificate_seen import (
    CertificateSeen,
    certificate_of,
    clean_words,
    fault_of_verification,
    tls_words,
    unverifying_context,
)
from mailserver.doctor.own_network import has_ipv6, is_ours
from mailserver.doctor.policy_seen import HostFault, PolicyAnswer
from mailserver.trust.mta_sts import POLICY_OCTETS_MOST, policy_url

__all__ = ["fetched", "over_at"]

HTTPS_PORT = 443
ADDRESSES_MOST = 4
SECONDS = 10.0  # of one address, for all of it
HEADERS = {"Accept": "text/plain", "User-Agent": "mailserver", "Connection": "close"}


def fetched(
    host: str, addresses: Sequence[str], *, port: int = HTTPS_PORT, seconds: float = SECONDS, ca_file: str | None = None
) -> tuple[PolicyAnswer, ...]:
    """What each address answers.  `ca_file`: other roots than those of this host.

    Without IPv6 here the IPv6 addresses are left out: whether others reach them cannot be told.
    """
    reached = [one for one in addresses if ":" not in one or is_ours(one) or has_ipv6()]
    answers = [_answer(host, one, port, seconds, ca_file) for one in reached[:ADDRESSES_MOST]]
    return tuple([replace(one, is_ours=is_ours(one.address)) for one in answers])


def _answer(host: str, address: str, port: int, seconds: float, ca_file: str | None) -> PolicyAnswer:
    until = time.monotonic() + seconds
    context = ssl.create_default_context(cafile=ca_file)
    try:
        with _connected(address, port, until) as plain, context.wrap_socket(plain, server_hostname=host) as secured:
            return _read(secured, host, address, until, certificate_of(secured))
    except ssl.SSLCertVerificationError as error:
        return _unverified(host, address, port, until, error)
    except ssl.SSLError as error:
        return PolicyAnswer(address=address, fault=HostFault.TLS, why=tls_words(error))
    except OSError as error:
        return PolicyAnswer(address=address, fault=HostFault.UNREACHABLE, why=tls_words(error))


def _unverified(host: str, address: str, port: int, until: float, error: ssl.SSLCertVerificationError) -> PolicyAnswer:
    """Once more, to see the certificate and what comes behind it."""
    context = unverifying_context()
    fault, why = fault_of_verification(error)
    try:
        with _connected(address, port, until) as plain, context.wrap_socket(plain, server_hostname=host) as secured:
            return _read(secured, host, address, until, certificate_of(secured, fault, why))
    except OSError:
        return PolicyAnswer(address=address, certificate=CertificateSeen((), 0.0, 0.0, fault, why), fault=HostFault.HTTP, why=why)


@contextmanager
def _connected(address: str, port: int, until: float) -> Iterator[socket.socket]:
    """A connection that is over at a time, however slowly the other side speaks."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("no time is left")
    with socket.create_connection((address, port), timeout=left) as made, over_at(made, until):
        yield made


@contextmanager
def over_at(made: socket.socket, until: float) -> Iterator[None]:
    """A connection ends at this time of the monotonic clock: a time-out of its own begins anew with each octet."""
    with made.dup() as same:  # TLS takes the first one away
        end = threading.Timer(max(0.0, until - time.monotonic()), _shut, [same])
        end.daemon = True
        end.start()
        try:
            yield
        finally:
            end.cancel()


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is over already
        pass


def _read(secured: ssl.SSLSocket, host: str, address: str, until: float, certificate: CertificateSeen) -> PolicyAnswer:
    connection = http.client.HTTPConnection(host)
    connection.sock = secured
    try:
        connection.request("GET", urlsplit(policy_url(host)).path, headers=HEADERS)
        said = connection.getresponse()
        body = said.read(POLICY_OCTETS_MOST + 1)
        if time.monotonic() >= until:  # then it was we who ended it
            raise TimeoutError("the answer has no end")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return PolicyAnswer(address=address, fault=HostFault.HTTP, why=tls_words(error), certificate=certificate)
    media_type = (said.getheader("Content-Type") or "").partition(";")[0].strip().lower()
    return PolicyAnswer(
        address=address, certificate=certificate, status=said.status, location=clean_words(said.getheader("Location") or ""),
        media_type=clean_words(media_type), body=body,
    )  # fmt: skip
