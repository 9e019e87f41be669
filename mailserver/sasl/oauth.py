"""Log-in with a token of OAuth, from the client's side: OAUTHBEARER (RFC 7628) and XOAUTH2, which came before it.  No I/O.

    exchange = TokenCredentials("user", token, host="smtp.example.org", port=587).exchange(offered)
    exchange.first()                    # name and token
    exchange.respond(challenge)         # a challenge is the server's no, in JSON: exchange.heard has it in words
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection

__all__ = ["TOKEN_MECHANISMS", "TokenCredentials", "TokenExchange", "is_token"]

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,8000}=*")  # RFC 6750 section 2.1: b64token
HEARD_CHARACTERS = 200
HEARD_FIELDS = ("status", "error", "scope")  # RFC 7628 section 3.2.2


def is_token(text: str) -> bool:
    """Whether it may stand behind ``Bearer``: nothing in it ends a field, and it fits into a line (RFC 4954 section 4.3)."""
    return TOKEN.fullmatch(text) is not None


class TokenExchange:
    """One login.  The server agrees at once, or says why not in a challenge, has one more response, and refuses."""

    mechanism = ""
    is_complete = True
    regret = b""  # the response to a no

    def __init__(self, credentials: TokenCredentials) -> None:
        self.heard = ""
        self.credentials = credentials

    def first(self) -> bytes:
        """The initial response: all that there is."""
        raise NotImplementedError

    def respond(self, challenge: bytes) -> bytes:
        """The response to the server's no.  Raises ValueError where it goes on asking."""
        if not self.is_complete:
            raise ValueError("it asks for more than the mechanism has")
        self.is_complete = False
        self.heard = words_of(challenge, self.credentials.token)
        return self.regret


class OAuthBearer(TokenExchange):
    """RFC 7628 section 3.1."""

    mechanism = "OAUTHBEARER"
    regret = b"\x01"  # section 3.2.3

    def first(self) -> bytes:
        it = self.credentials
        name = it.username.replace("=", "=3D").replace(",", "=2C")
        place = f"host={it.host}\x01port={it.port}\x01" if it.host else ""
        return f"n,a={name},\x01{place}auth=Bearer {it.token}\x01\x01".encode()


class XOAuth2(TokenExchange):
    """As Google and Microsoft describe it."""

    mechanism = "XOAUTH2"

    def first(self) -> bytes:
        it = self.credentials
        return f"user={it.username}\x01auth=Bearer {it.token}\x01\x01".encode()


KINDS: tuple[type[TokenExchange], ...] = (OAuthBearer, XOAuth2)
TOKEN_MECHANISMS = tuple(kind.mechanism for kind in KINDS)


class TokenCredentials:
    """A name and a token.  `host` ("" to leave both out) and `port` are where the client believes to be.

    Raises ValueError for what no mechanism can say.
    """

    def __init__(self, username: str, token: str, host: str = "", port: int = 0) -> None:
        if not username or not username.isprintable():
            raise ValueError("a user name has at least one character, and no control characters")
        if not is_token(token):
            raise ValueError("a token has letters, digits and -._~+/ alone")
        self.username = username
        self.token = token
        self.host = host
        self.port = port

    def exchange(self, offered: Collection[str], among: Collection[str] = TOKEN_MECHANISMS) -> TokenExchange | None:
        """With the best mechanism that is `offered` and `among` those that are wanted; None where there is none."""
        for kind in KINDS:
            if kind.mechanism in offered and kind.mechanism in among:
                return kind(self)
        return None


def words_of(challenge: bytes, token: str) -> str:
    """The server's no in words, "" where it is none that is understood.  The token is not in them, whatever the server says."""
    try:
        said = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    found = [f"{name} {said[name]}" for name in HEARD_FIELDS if isinstance(said.get(name), str | int) and said[name] != ""]
    words = ", ".join(found).replace(token, "…")
    return "".join([one if one.isprintable() else "?" for one in words])[:HEARD_CHARACTERS]
