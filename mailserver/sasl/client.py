"""SASL with a password, from the client's side: SCRAM-SHA-256 with and without channel binding (RFC 7677), PLAIN (RFC 4616),
LOGIN and CRAM-MD5 (RFC 2195).  No I/O.

    exchange = Credentials("user", "password").exchange(offered)
    exchange.first()                    # the initial response, None where the server speaks first
    exchange.respond(challenge)         # ValueError where the server cannot be believed
    exchange.is_complete                # now a success may be believed
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Collection

from mailserver.sasl.saslprep import saslprep
from mailserver.sasl.scram_keys import client_and_server_key
from mailserver.sasl.steps import ChannelBindings

__all__ = ["CLIENT_MECHANISMS", "ClientExchange", "Credentials"]

ITERATIONS_LEAST = 4096  # RFC 7677 section 4
ITERATIONS_MOST = 200_000  # the work is done in our event loop
SERVER_FIRST = re.compile(r"r=([\x21-\x2b\x2d-\x7e]{1,1024}),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,9})(?:,.*)?", re.DOTALL)
SERVER_FINAL = re.compile(r"v=([A-Za-z0-9+/]{43}=)(?:,.*)?", re.DOTALL)


class ClientExchange:
    """One login.  What a mechanism does not need raises ValueError: the server asks for more than there is."""

    mechanism = ""
    is_complete = True

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def first(self) -> bytes | None:
        """The initial response."""
        return None

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a challenge."""
        raise ValueError("it asks for more than the mechanism has")


class Plain(ClientExchange):
    """The password as it is: for encrypted connections."""

    mechanism = "PLAIN"

    def first(self) -> bytes:
        return f"\0{self._credentials.username}\0{self._credentials.password}".encode()


class Login(ClientExchange):
    """Name and password one after the other, whatever the server asks."""

    mechanism = "LOGIN"
    is_complete = False

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(credentials)
        self._answers = [credentials.username, credentials.password]

    def respond(self, challenge: bytes) -> bytes:
        if not self._answers:
            return super().respond(challenge)
        answer = self._answers.pop(0)
        self.is_complete = not self._answers
        return answer.encode()


class CramMD5(ClientExchange):
    """A keyed hash of the challenge."""

    mechanism = "CRAM-MD5"
    is_complete = False

    def respond(self, challenge: bytes) -> bytes:
        if self.is_complete:
            return super().respond(challenge)
        self.is_complete = True
        digest = hmac.digest(self._credentials.password.encode(), challenge, "md5").hex()
        return f"{self._credentials.username} {digest}".encode()


class ScramSHA256(ClientExchange):
    """Both ends prove that they know the password (RFC 5802).

    `gs2_header` says what of channel binding, and `bound` is the data of it: ``n`` for none, ``y`` where we could and the server
    does not offer it, so that it sees where somebody has taken its offer away (section 6).
    """

    mechanism = "SCRAM-SHA-256"
    is_complete = False

    def __init__(
        self,
        credentials: Credentials,
        nonce: Callable[[], str] = lambda: secrets.token_urlsafe(18),
        *,
        gs2_header: str = "n,,",
        bound: bytes = b"",
    ) -> None:
        super().__init__(credentials)
        self._gs2_header = gs2_header
        self._bound = bound
        self._nonce = nonce()
        name = credentials.prepared_username.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={name},r={self._nonce}"
        self._signature = b""

    def first(self) -> bytes:
        return f"{self._gs2_header}{self._bare}".encode()

    def respond(self, challenge: bytes) -> bytes:
        if self.is_complete:
            return super().respond(challenge)
        return self._last(challenge) if self._signature else self._final(challenge)

    def _final(self, challenge: bytes) -> bytes:
        server_first = challenge.decode("utf-8")
        found = SERVER_FIRST.fullmatch(server_first)
        if found is None:
            raise ValueError("its first message is none of SCRAM")
        nonce, salt, iterations = found[1], base64.b64decode(found[2], validate=True), int(found[3])
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise ValueError("its nonce is not made from ours")
        if not ITERATIONS_LEAST <= iterations <= ITERATIONS_MOST:
            raise ValueError(f"it wants {iterations} iterations, which are not within {ITERATIONS_LEAST} and {ITERATIONS_MOST}")
        client_key, server_key = self._credentials.scram_keys(salt, iterations)
        binding = base64.b64encode(self._gs2_header.encode("ascii") + self._bound).decode("ascii")
        without_proof = f"c={binding},r={nonce}"
        message = f"{self._bare},{server_first},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._signature = hmac.digest(server_key, message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def _last(self, challenge: bytes) -> bytes:
        found = SERVER_FINAL.fullmatch(challenge.decode("utf-8"))
        if found is None or not hmac.compare_digest(base64.b64decode(found[1]), self._signature):
            raise ValueError("it has not proven that it knows the password")
        self.is_complete = True
        return b""


class ScramSHA256Plus(ScramSHA256):
    """The same, bound to the TLS connection: nobody in the middle can hand it on."""

    mechanism = "SCRAM-SHA-256-PLUS"


BINDING = "tls-exporter"  # RFC 9266: that of TLS 1.3.  Before it servers agree on none that can be relied on
NO_BINDINGS = ChannelBindings()
KINDS: tuple[type[ClientExchange], ...] = (ScramSHA256Plus, ScramSHA256, Plain, Login, CramMD5)
CLIENT_MECHANISMS = tuple(kind.mechanism for kind in KINDS)


class Credentials:
    """A name and its password, for many logins.  Raises ValueError for what no mechanism can say."""

    def __init__(self, username: str, password: str) -> None:
        if not username or not password or "\0" in username + password:
            raise ValueError("a user name and a password have at least one character, and no NUL")
        self.username = username
        self.password = password
        self.prepared_username = saslprep(username)
        self._scram: tuple[bytes, int, tuple[bytes, bytes]] | None = None  # of the last salt: it is the same each time

    def exchange(
        self, offered: Collection[str], among: Collection[str] = CLIENT_MECHANISMS, bindings: ChannelBindings = NO_BINDINGS
    ) -> ClientExchange | None:
        """With the best mechanism that is `offered` and `among` those that are wanted; None where there is none.

        `bindings` are those of the connection: without the one of TLS 1.3 there is no SCRAM-SHA-256-PLUS.
        """
        bound = bindings.data.get(BINDING)
        may_bind = bound is not None and ScramSHA256Plus.mechanism in among
        for kind in KINDS:
            if kind.mechanism not in offered or kind.mechanism not in among:
                continue
            if kind is ScramSHA256:
                return ScramSHA256(self, gs2_header="y,," if may_bind else "n,,")
            if kind is not ScramSHA256Plus:
                return kind(self)
            if bound is not None:
                return ScramSHA256Plus(self, gs2_header=f"p={BINDING},,", bound=bound)
        return None

    def scram_keys(self, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
        """ClientKey and ServerKey."""
        if self._scram is None or self._scram[:2] != (salt, iterations):
            keys = client_and_server_key(saslprep(self.password), salt=salt, iterations=iterations)
            self._scram = salt, iterations, keys
        return self._scram[2]
