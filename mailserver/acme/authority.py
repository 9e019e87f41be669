"""A CA that speaks ACME (RFC 8555): its directory, our account there, signed requests.  Everything here blocks.

The library's client does the signing; what it has not (a bound for a whole answer, RFC 9773, nonces that fail again and again) is
here.  This module is imported by those alone who get certificates.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import email.utils
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from acme import client, errors, messages
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.interfaces import JSONDeSerializable
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from mailserver.acme.allowance import GivenUp, TimeAllowance
from mailserver.mail.durable import make_directory, replace_file
from mailserver.tls.identity import key_pem
from mailserver.tls.issued import account_path

__all__ = ["Authority", "Binding", "IssueFailed", "certificate_id_of", "error_code"]

ANSWER_OCTETS = 1 << 20
ANSWER_SECONDS = 20.0
NONCES = 5  # how often a request is made again with another one (RFC 8555 section 6.5)
WORDS = 500
FAULTS = (
    errors.Error, requests.RequestException, JoseError, OSError, ValueError, TypeError, KeyError, AttributeError,
)  # fmt: skip


class IssueFailed(Exception):
    """There is no certificate; the words say why.

    `retry_seconds` is how long the CA bids us wait, `names` those that could not be shown to be ours.
    """

    def __init__(self, words: str, *, retry_seconds: float | None = None, names: tuple[str, ...] = ()) -> None:
        super().__init__(" ".join(words.split())[:WORDS])
        self.retry_seconds = retry_seconds
        self.names = names


@dataclass(frozen=True, slots=True)
class Binding:
    """An external account binding (RFC 8555 section 7.3.4); its `repr` does not show the key."""

    kid: str
    key: str

    def __repr__(self) -> str:
        return f"<Binding {self.kid}>"


class _Network(client.ClientNetwork):
    """One answer is bounded in time and in octets, and so is the whole."""

    def __init__(self, key: Any, allowance: TimeAllowance, ca_file: str | None) -> None:
        super().__init__(key, alg=ES256, user_agent="mailserver")
        self._pace = allowance
        self._roots = ca_file or True
        self.retry_seconds: float | None = None
        self.session.trust_env = False  # neither a proxy nor a password of whoever has started us
        logging.getLogger("acme").setLevel(logging.INFO)  # it writes down whole answers

    def _send_request(self, method: str, url: str, *args: Any, **named: Any) -> requests.Response:
        if not url.startswith("https://"):
            raise errors.ClientError(f"the CA names an address without https: {url[:200]}")
        seconds = self._pace.left(ANSWER_SECONDS)
        end = time.monotonic() + seconds
        named["verify"], named["stream"], named["timeout"] = self._roots, True, seconds
        named["allow_redirects"] = False  # RFC 8555 knows none, and they might lead to a place without https
        named.setdefault("headers", {}).setdefault("User-Agent", self.user_agent)
        response: requests.Response = self.session.request(method, url, *args, **named)
        with response:
            octets = bytearray()
            for piece in response.iter_content(16384):
                octets += piece
                if len(octets) > ANSWER_OCTETS or time.monotonic() > end:
                    raise errors.ClientError(f"{url[:200]}: the answer is too long, or takes too long")
        if 300 <= response.status_code < 400:
            raise errors.ClientError(f"{url[:200]} sends us elsewhere ({response.status_code}): name the right address")
        response._content = bytes(octets)
        response.encoding = "utf-8"
        self.retry_seconds = seconds_of(response.headers.get("Retry-After", ""), time.time())
        return response

    def post(self, *args: Any, **named: Any) -> requests.Response:
        """See the library; a nonce that is refused is no failure."""
        for tries in range(NONCES):
            try:
                answer: requests.Response = self._post_once(*args, **named)
                return answer
            except messages.Error as error:
                if error.code != "badNonce" or tries == NONCES - 1:
                    raise
                self._nonces.clear()
        raise AssertionError


class Authority:
    """Our account at the CA with this `directory_url`; made where there is none.

    `keys_directory` keeps its key.  All methods raise `IssueFailed`, and `GivenUp` where no time is left.
    """

    def __init__(
        self,
        directory_url: str,
        *,
        keys_directory: str,
        contact: str,
        binding: Binding | None = None,
        ca_file: str | None = None,
        allowance: TimeAllowance,
    ) -> None:
        self.url, self.allowance = directory_url, allowance
        self._contact, self._binding = contact, binding
        self._path = account_path(keys_directory, directory_url)
        self._account = _read_account(self._path, directory_url)
        key = serialization.load_pem_private_key(self._account["key"].encode("ascii"), password=None)
        self.key = JWKEC(key=key)
        self._net = _Network(self.key, allowance, ca_file)
        self._client: Any = None

    # --- the directory and the account ---

    def meet(self) -> None:
        """Read the directory, and have an account."""
        self._told("the CA cannot be asked", self._meet)

    def _meet(self) -> None:
        self._client = client.ClientV2(client.ClientV2.get_directory(self.url, self._net), self._net)
        if self._account["uri"] and self._account["contact"] == self._contact:
            self._net.account = messages.RegistrationResource(uri=self._account["uri"], body=messages.Registration())
            return
        self._register()

    def _register(self) -> None:
        named: dict[str, Any] = {"terms_of_service_agreed": True, "contact": (f"mailto:{self._contact}",)}
        if self._binding is not None:
            named["external_account_binding"] = messages.ExternalAccountBinding.from_data(
                self.key.public_key(), self._binding.kid, self._binding.key, self._client.directory
            )
        self._net.account = None
        try:
            uri = self._registered(named)
        except errors.ConflictError as known:  # it has this key's account
            uri = str(known.location)
            account = messages.RegistrationResource(uri=uri, body=messages.Registration())
            self._net.account = account
            if self._account["contact"] != self._contact and "contact" in named:
                with contextlib.suppress(messages.Error):  # it does not want this one, which is no reason to have no account
                    self._post(uri, messages.UpdateRegistration(contact=named["contact"]))
        if not uri.startswith("https://"):
            raise errors.ClientError("the CA names no account")
        self._net.account = messages.RegistrationResource(uri=uri, body=messages.Registration())
        self._account |= {"uri": uri, "contact": self._contact}
        _write_account(self._path, self._account)

    def _registered(self, named: dict[str, Any]) -> str:
        """The URL of a new account; without a contact where the CA does not want that one."""
        try:
            return str(self._client.new_account(messages.NewRegistration(**named)).uri)
        except messages.Error as error:
            if error_code(error.typ) not in ("invalidContact", "unsupportedContact"):
                raise
        del named["contact"]
        return str(self._client.new_account(messages.NewRegistration(**named)).uri)

    @property
    def profiles(self) -> Mapping[str, Any]:
        """Those that the CA offers, by name."""
        meta = self._client.directory.to_partial_json().get("meta") or {}
        meta = meta if isinstance(meta, Mapping) else meta.to_partial_json()
        found = meta.get("profiles")
        return found if isinstance(found, Mapping) else {}

    # --- requests ---

    def fetch(self, url: str) -> tuple[Any, str]:
        """Read a resource (POST-as-GET, RFC 8555 section 6.3): its JSON, and its text."""
        response = self._told("the CA does not answer", self._post, url, None)
        try:
            return response.json(), response.text
        except ValueError:
            return None, response.text

    def send(self, url: str, message: Any) -> Any:
        """Post a message; the answer's JSON."""
        return self._told("the CA refuses", lambda: self._post(url, message).json())

    def new_order(self, names: list[str], profile: str, replaces: str) -> tuple[str, Any]:
        """A new order: its URL and its JSON.  `replaces` is an identifier by RFC 9773 section 5, "" where there is none."""
        return self._told("the CA takes no order", self._new_order, names, profile, replaces)  # type: ignore[no-any-return]

    def _new_order(self, names: list[str], profile: str, replaces: str) -> tuple[str, Any]:
        order: dict[str, Any] = {"identifiers": [{"type": "dns", "value": name} for name in names]}
        if profile:
            order["profile"] = profile
        url = self._client.directory["newOrder"]
        if replaces and "renewalInfo" in self._links:
            try:
                return self._ordered(url, order | {"replaces": replaces})
            except (errors.ConflictError, messages.Error) as error:
                code = "" if isinstance(error, errors.ConflictError) else error_code(error.typ)
                if code not in ("", "alreadyReplaced", "malformed"):
                    raise
        return self._ordered(url, order)

    def _ordered(self, url: str, order: dict[str, Any]) -> tuple[str, Any]:
        try:
            response = self._post(url, _Plain(order))
        except messages.Error as error:
            if error_code(error.typ) != "accountDoesNotExist":
                raise
            self._register()  # the CA has forgotten it
            response = self._post(url, _Plain(order))
        return str(response.headers["Location"]), response.json()

    def key_authorization(self, token: str) -> str:
        """What answers the challenge with this token (RFC 8555 section 8.1)."""
        thumbprint = self.key.thumbprint(hash_function=hashes.SHA256)
        return f"{token}.{base64.urlsafe_b64encode(thumbprint).rstrip(b'=').decode('ascii')}"

    def accept(self, url: str) -> None:
        """Tell the CA that it may look (RFC 8555 section 7.5.1)."""
        self.send(url, _Plain({}))

    def finalize(self, url: str, csr: x509.CertificateSigningRequest) -> Any:
        """The order's JSON."""
        return self.send(url, messages.CertificateRequest(csr=csr))

    def revoke(self, certificate: x509.Certificate, reason: int) -> None:
        """Have a certificate revoked (RFC 8555 section 7.6); one that is revoked already is."""
        url = self._client.directory["revokeCert"]

        def revoked() -> None:
            try:
                self._post(url, messages.Revocation(certificate=certificate, reason=reason))
            except messages.Error as error:
                if error_code(error.typ) != "alreadyRevoked":
                    raise

        self._told("the CA does not revoke it", revoked)

    def renewal_window(self, certificate: x509.Certificate) -> tuple[float, float, str, float] | None:
        """When the CA would have it renewed (RFC 9773 section 4): start, end, explanation, seconds until it may be asked again.

        None where it offers no such thing.
        """
        base, id = self._links.get("renewalInfo"), certificate_id_of(certificate)
        if not isinstance(base, str) or not id:
            return None
        return self._told("the CA does not tell when to renew", self._window, base.rstrip("/") + "/" + id)  # type: ignore[no-any-return]

    def _window(self, url: str) -> tuple[float, float, str, float]:
        found = self._net.get(url).json()
        window = found["suggestedWindow"]
        start, end = moment_of(window["start"]), moment_of(window["end"])
        if not start < end:
            raise ValueError("a window that ends before it begins")
        why = found.get("explanationURL")
        return start, end, why[:500] if isinstance(why, str) else "", self._net.retry_seconds or 0.0

    @property
    def _links(self) -> Mapping[str, Any]:
        found = self._client.directory.to_partial_json()
        return found if isinstance(found, Mapping) else {}

    @property
    def retry_seconds(self) -> float | None:
        """What the last answer said of when to ask again."""
        return self._net.retry_seconds

    def _post(self, url: str, message: Any) -> requests.Response:
        return self._net.post(url, message, new_nonce_url=self._client.directory["newNonce"])

    def _told(self, what: str, act: Any, *arguments: Any) -> Any:
        """Do it; whatever the CA, the network or the library meets with is told in the same way."""
        try:
            return act(*arguments)
        except (GivenUp, IssueFailed):
            raise
        except messages.Error as error:
            raise IssueFailed(f"{what}: {_words_of(error)}", retry_seconds=self._net.retry_seconds) from error
        except FAULTS as error:
            raise IssueFailed(
                f"{what}: {_plain_words_of(error)} ({self.url})", retry_seconds=self._net.retry_seconds
            ) from error


class _Plain(JSONDeSerializable):
    """A message as it is."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = dict(fields)

    def to_partial_json(self) -> dict[str, Any]:
        """See josepy."""
        return self._fields

    def __bool__(self) -> bool:
        return True  # an empty one, too: the library sends none else

    @classmethod
    def from_json(cls, jobj: Any) -> _Plain:
        """See josepy."""
        return cls(jobj)


def certificate_id_of(certificate: x509.Certificate) -> str:
    """What a CA calls it (RFC 9773 section 4.1); "" where it lacks an authority key identifier."""
    try:
        return str(client._renewal_info_path_component(certificate))
    except (x509.ExtensionNotFound, ValueError, TypeError):
        return ""


def error_code(type: Any) -> str:
    """The last part of a problem's type (RFC 8555 section 6.7): `malformed` of ``urn:ietf:params:acme:error:malformed``."""
    return str(type).rsplit(":", 1)[-1]


def moment_of(text: str) -> float:
    """Seconds since the epoch, of a time by RFC 3339.  Raises ValueError."""
    found = datetime.datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without its zone")
    return found.timestamp()


def seconds_of(text: str, now: float) -> float | None:
    """What a Retry-After field says (RFC 9110 section 10.2.3); None where it says nothing that can be read."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _words_of(error: messages.Error) -> str:
    code = error_code(error.typ)
    lines = [f"{code}: {error.detail or error.title or 'no reason given'}"]
    for one in error.subproblems or ():
        lines.append(f"{one.identifier.value if one.identifier else '?'}: {one.detail or one.typ}")
    return "; ".join(lines)


def _plain_words_of(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError):
        return "it cannot be reached" if not isinstance(error, requests.exceptions.SSLError) else f"its certificate: {error}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {ANSWER_SECONDS:g} s"
    if isinstance(error, errors.ClientError) and error.args and isinstance(error.args[0], requests.Response):
        return f"it answers with {error.args[0].status_code}"
    return str(error) or type(error).__name__


# --- the account on the disk ---


def _read_account(path: str, directory_url: str) -> dict[str, str]:
    """One that cannot be read is begun anew: all that is lost is an account at the CA.  Raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            kept = json.loads(file.read(1 << 16))
        found = {name: str(kept[name]) for name in ("directory", "key", "uri", "contact")}
        if found["directory"] == directory_url:
            serialization.load_pem_private_key(found["key"].encode("ascii"), password=None)
            return found
    except (FileNotFoundError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    account = {"directory": directory_url, "key": key_pem(key), "uri": "", "contact": ""}
    _write_account(path, account)  # before anybody is told of it
    return account


def _write_account(path: str, account: Mapping[str, str]) -> None:
    make_directory(os.path.dirname(path))
    replace_file(path, json.dumps(account, indent=1) + "\n", lambda fd: os.fchmod(fd, 0o400))
