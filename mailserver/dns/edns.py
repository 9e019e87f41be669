"""Which name servers are asked without EDNS for a while: those that answer only questions without it.

Some firewalls drop every question with an OPT record (RFC 6891 section 6.2.2: a requestor may ask without it, and remember that
"for a brief time").  Decisions only; the time is handed in.
"""

from __future__ import annotations

from mailserver.dns.servers import NameServer

__all__ = ["EdnsMemory"]

PROOFS = 2  # one is not enough: a lost packet looks the same
WITHOUT_SECONDS = 900.0


class EdnsMemory:
    """What is known of each server's EDNS."""

    __slots__ = ("_doubted", "_proofs", "_without_until")

    def __init__(self) -> None:
        self._doubted: set[NameServer] = set()  # the last question with EDNS failed, and nothing has come since
        self._proofs: dict[NameServer, int] = {}  # how often in a row only a question without EDNS was answered
        self._without_until: dict[NameServer, float] = {}

    def wants(self, server: NameServer, now: float) -> bool:
        """Whether the next question to this server has an OPT record."""
        until = self._without_until.get(server)
        if until is not None:
            if now < until:
                return False
            del self._without_until[server]
        return server not in self._doubted

    def failed(self, server: NameServer, *, edns: bool) -> None:
        """The server was silent, or has not understood the question.  `edns`: the question had EDNS.

        Where questions with and without EDNS have failed, EDNS is not the cause.
        """
        if edns:
            self._doubted.add(server)
        else:
            self._doubted.discard(server)

    def answered(self, server: NameServer, now: float, *, edns: bool, after_failure: bool) -> bool:
        """The server has answered.  `after_failure`: the same question had failed there with EDNS.

        Return whether the server is asked without EDNS from now on.
        """
        proves = not edns and (after_failure or server in self._doubted)
        self._doubted.discard(server)
        if edns:
            self._proofs.pop(server, None)
        elif proves:
            self._proofs[server] = self._proofs.get(server, 0) + 1
            if self._proofs[server] >= PROOFS:
                del self._proofs[server]
                self._without_until[server] = now + WITHOUT_SECONDS
                return True
        return False
