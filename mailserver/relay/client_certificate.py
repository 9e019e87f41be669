"""The certificate that we show to a host that asks for one (RFC 8446 section 4.4.2, RFC 3207 section 4)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.logger import Logger

__all__ = ["ClientCertificate", "renewed"]

OCTETS_MOST = 1 << 20
LOG = Logger()


@dataclass(frozen=True, slots=True)
class _Pair:
    chain: tuple[x509.Certificate, ...]
    key: Any


class ClientCertificate:
    """A pair of PEM files, read when it is first needed.  What was read stays; `renewed` takes up what has changed."""

    def __init__(self, certificate: str, key: str) -> None:
        self.paths = (certificate, key)
        self._read: _Pair | None = None
        self._why = ""
        self._as_read: object = None

    def __repr__(self) -> str:
        return f"<ClientCertificate {self.paths[0]}>"

    @property
    def fault(self) -> str:
        """Why it cannot be shown now, "" where it can.  Blocks for two small files where they have not been read."""
        if self._read is None:
            self._why = ""
            try:
                self._as_read = self._state()
                self._read = _pair_of(*self.paths)
            except OSError as error:
                self._why = f"{error.filename or self.paths[0]}: {error.strerror or error}"
            except (ValueError, TypeError, SSL.Error, UnsupportedAlgorithm) as error:
                self._why = f"{self.paths[0]}, {self.paths[1]}: {_words_of(error)}"
        return self._why

    @property
    def is_read(self) -> bool:
        """Whether it can be shown, whatever the files say now."""
        return self._read is not None

    @property
    def has_changed(self) -> bool:
        """Whether the files are others than those that were read."""
        try:
            return self._read is not None and self._state() != self._as_read
        except OSError:
            return True

    def show_in(self, context: SSL.Context) -> None:
        """Let connections of the context show it.  Raises ValueError where it cannot be read."""
        if self.fault or self._read is None:
            raise ValueError(self.fault)
        _put(context, self._read)

    def _state(self) -> object:
        return [(found.st_mtime_ns, found.st_ino, found.st_size) for found in map(os.stat, self.paths)]


def renewed(before: ClientCertificate) -> ClientCertificate:
    """The same files after a reload: what has changed is read; where that is faulty, `before` goes on."""
    if not before.has_changed:
        return before
    now = ClientCertificate(*before.paths)
    if not now.fault:
        return now
    LOG.warn("the client certificate that has changed cannot be used, the former one stays: {why}", why=now.fault)
    return before


def _pair_of(certificate: str, key: str) -> _Pair:
    chain = x509.load_pem_x509_certificates(_octets_of(certificate))
    pair = _Pair(tuple(chain), load_pem_private_key(_octets_of(key), None))
    _put(SSL.Context(SSL.TLS_CLIENT_METHOD), pair)  # whether they belong together
    return pair


def _put(context: SSL.Context, pair: _Pair) -> None:
    own, *others = pair.chain
    context.use_certificate(own)
    for other in others:
        context.add_extra_chain_cert(other)
    context.use_privatekey(pair.key)
    context.check_privatekey()


def _words_of(error: Exception) -> str:
    """OpenSSL has none for a key that is another certificate's."""
    return "the key is not the certificate's" if isinstance(error, SSL.Error) else str(error)


def _octets_of(path: str) -> bytes:
    with open(path, "rb") as file:
        octets = file.read(OCTETS_MOST + 1)
    if len(octets) > OCTETS_MOST:
        raise ValueError(f"{path} is larger than {OCTETS_MOST} octets")
    return octets

