"""What a request is answered: a function of the request and of what the server has handed over.  No I/O, no clock."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from mailserver.mail.address import Address, AddressError
from mailserver.web.autoconfig import autoconfig
from mailserver.web.autodiscover import (
    NO_ADDRESS,
    NO_PROVIDER,
    AutodiscoverFault,
    asked_address,
    autodiscover,
    autodiscover_error,
    is_for_outlook,
)
from mailserver.web.content import ClientSettings, WebContent
from mailserver.web.mobileconfig import mobileconfig, signed
from mailserver.web.sites import Site, SiteKind, domain_of, host_of, site_of
from mailserver.web.user_agents import user_agent_configuration

__all__ = ["ANSWER_HEADERS", "CHALLENGE_PATH", "READ", "WebAnswer", "WebRequest", "answer"]

ANSWER_HEADERS = (
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)
POLICY_PATH = "/.well-known/mta-sts.txt"  # RFC 8461 section 3.3
CHALLENGE_PATH = "/.well-known/acme-challenge/"  # RFC 8555 section 8.3
AUTOCONFIG_PATH = "/.well-known/autoconfig/mail/config-v1.1.xml"
SHORT_AUTOCONFIG_PATH = "/mail/config-v1.1.xml"
AUTODISCOVER_PATH = "/autodiscover/autodiscover.xml"  # in any case: Outlook writes it in several
PROFILE_PATH = "/profile.mobileconfig"
USER_AGENTS_PATH = "/.well-known/user-agent-configuration.json"
LIVE_PATH, READY_PATH = "/health/live", "/health/ready"
PATH = re.compile(r"/[!-~]*")
ADDRESS_CHARACTERS = 320
FIELDS_MOST = 20
TEXT, XML, JSON = "text/plain; charset=utf-8", "application/xml; charset=utf-8", "application/json"
PROFILE = "application/x-apple-aspen-config"
READ = ("GET", "HEAD")
POST = ("POST",)
MAIL_SITES = (SiteKind.AUTOCONFIG, SiteKind.DOMAIN, SiteKind.HOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRequest:
    """A whole request.

    `target` is what stands in the request line (RFC 9112 section 3.2), `hosts` its Host fields.  `https_port` is where all but
    challenges and health is to be asked for instead: None on a connection with TLS, and where we have no listener with TLS.
    """

    method: str
    target: str
    hosts: tuple[str, ...]
    is_old: bool = False  # HTTP/1.0, which may do without a Host field
    body: bytes = b""
    https_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAnswer:
    """An answer.  `why` is for the log.  A HEAD has the same, and its body is not sent."""

    status: int
    body: bytes = b""
    media_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()
    why: str = ""
    host: str = ""  # of ours, for the log


def answer(request: WebRequest, content: WebContent, *, silent_seconds: float = 0.0, silent_most: float = 15.0) -> WebAnswer:
    """The answer.  `silent_seconds` is how long the server has said nothing; more than `silent_most` tells of its health, too."""
    found = _read_target(request)
    if isinstance(found, WebAnswer):
        return found
    host, path, query = found
    silent = f"the mail server has said nothing for {silent_seconds:.0f} seconds" if silent_seconds > silent_most else ""
    said = _of_any_host(request, host, path, content, silent)
    site = site_of(host, content)
    if said is None and site is None:
        return _says(421, "This host name is not served here.", why="not ours")
    if said is None and request.https_port is not None:
        said = _elsewhere(request, host, path, query)
    if said is None and site is not None:
        said = _of_site(request, site, path, query, content)
    return _with_host(said or _says(404, "There is no such page."), host)


def _read_target(request: WebRequest) -> tuple[str, str, str] | WebAnswer:
    """Host, path and query."""
    authority = request.hosts[0] if request.hosts else ""
    if len(request.hosts) > 1 or (not request.hosts and not request.is_old):
        return _says(400, "A request has one Host field.", why="not one Host field")  # RFC 9112 section 3.2
    target = request.target
    if not target.startswith("/"):
        if not re.match("(?i)https?://", target):
            return _says(400, "The request target is not understood.", why="target")
        try:
            parts = urlsplit(target)
        except ValueError:
            return _says(400, "The request target is not understood.", why="target")
        if "@" in parts.netloc:
            return _says(400, "The request target is not understood.", why="target")
        authority, rest = parts.netloc, target.split("//", 1)[1]  # RFC 9112 section 3.2.2: it takes the Host field's place
        target = "/" + rest.partition("/")[2] if "/" in rest else "/"
    if PATH.fullmatch(target) is None:
        return _says(400, "The request target is not understood.", why="target")
    path, _, query = target.partition("?")
    return host_of(authority), path, query


def _of_any_host(request: WebRequest, host: str, path: str, content: WebContent, silent: str) -> WebAnswer | None:
    """What is answered with and without TLS: challenges for their host, health for each of ours."""
    if path.startswith(CHALLENGE_PATH):
        words = content.challenges.get((host, path[len(CHALLENGE_PATH) :]))
        if words is not None:
            return _by(request, READ, lambda: _says(200, words, media_type="application/octet-stream", is_line=False))
    elif path in (LIVE_PATH, READY_PATH) and site_of(host, content) is not None:
        return _by(request, READ, lambda: _health(path, content, silent))
    return None


def _health(path: str, content: WebContent, silent: str) -> WebAnswer:
    if path == LIVE_PATH:
        return _as_json(503 if silent else 200, {"live": not silent})
    reasons = ["nothing is known of the mail server yet"] if content.not_ready is None else list(content.not_ready)
    if silent:
        reasons = [silent]
    return _as_json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})


def _elsewhere(request: WebRequest, host: str, path: str, query: str) -> WebAnswer:
    port = "" if request.https_port == 443 else f":{request.https_port}"
    place = f"https://{host}{port}{path}" + (f"?{query}" if query else "")
    if path.lower() == AUTODISCOVER_PATH:
        status = 302  # the one that Outlook follows
    else:
        status = 301 if request.method in READ else 308
    return WebAnswer(status=status, body=b"It is to be asked for by https.\n", headers=(("Location", place),))


def _of_site(request: WebRequest, site: Site, path: str, query: str, content: WebContent) -> WebAnswer | None:
    kind = site.kind
    if kind is SiteKind.POLICY and path == POLICY_PATH:
        text = content.policies.get(domain_of(site.domain, content))
        # The one media type that a policy has (RFC 8461 section 3.2)
        return None if text is None else _by(request, READ, lambda: _says(200, text, media_type="text/plain", is_line=False))
    if kind in (SiteKind.AUTODISCOVER, SiteKind.DOMAIN) and path.lower() == AUTODISCOVER_PATH:
        return _by(request, POST, lambda: _outlook(request, content))
    address = _asked(query, content)
    # A program that has looked for the MX of another domain asks our names about it.
    domain = site.domain if address is None else address.domain
    if kind is SiteKind.USER_AGENTS and path == USER_AGENTS_PATH:
        document = user_agent_configuration(site.domain, content.clients[domain_of(site.domain, content)])
        return _by(request, READ, lambda: WebAnswer(status=200, body=document, media_type=JSON))
    settings = content.clients.get(domain_of(domain, content))
    if settings is None or not (settings.incoming and settings.outgoing):
        # The host's own name without an address; else half of them, of no use to a mail program, which then goes on guessing.
        return _profile(None, ClientSettings(), content) if settings is None and path == PROFILE_PATH else None
    if kind in MAIL_SITES and (path == AUTOCONFIG_PATH or (path == SHORT_AUTOCONFIG_PATH and kind is not SiteKind.DOMAIN)):
        return _by(request, READ, lambda: _says(200, autoconfig(domain, settings), media_type=XML))
    if kind in MAIL_SITES and path == PROFILE_PATH:
        return _by(request, READ, lambda: _profile(address, settings, content))
    return None


def _asked(query: str, content: WebContent) -> Address | None:
    """The address of ours that the query names, for which a mail program is to be set up."""
    try:
        fields = dict(parse_qsl(query, max_num_fields=FIELDS_MOST, errors="strict"))
    except (ValueError, UnicodeError):
        return None
    return _address(fields.get("emailaddress") or fields.get("email") or "", content)


def _address(text: str, content: WebContent) -> Address | None:
    """None: it is no address, or none of a domain of ours.  Its domain is in normal form."""
    if len(text) > ADDRESS_CHARACTERS or not text.isprintable():
        return None
    try:
        found = Address.parse(text, utf8=True)
        domain = found.domain_key
    except AddressError:
        return None
    return Address(found.local, domain) if domain_of(domain, content) else None


def _profile(address: Address | None, settings: ClientSettings, content: WebContent) -> WebAnswer:
    if address is None:
        return _says(400, "Say whose mail it is about: ?emailaddress=name@domain", why="no address of ours")
    profile = mobileconfig(str(address), settings)
    if content.certificate is not None:
        profile = signed(profile, content.certificate)
    headers = (("Content-Disposition", 'attachment; filename="mail.mobileconfig"'), ("Cache-Control", "no-store"))
    return WebAnswer(status=200, body=profile, media_type=PROFILE, headers=headers)


def _outlook(request: WebRequest, content: WebContent) -> WebAnswer:
    try:
        text, schema = asked_address(request.body)
    except AutodiscoverFault as fault:
        return _says(400, "The request is not understood.", why=str(fault))
    address = _address(text, content)
    settings = None if address is None else content.clients[domain_of(address.domain, content)]
    if not is_for_outlook(schema):
        body = autodiscover_error(*NO_PROVIDER)
    elif address is None or settings is None or not (settings.incoming and settings.outgoing):
        body = autodiscover_error(*NO_ADDRESS)
    else:
        body = autodiscover(str(address), settings)
    return WebAnswer(status=200, body=body, media_type=XML, headers=(("Cache-Control", "no-store"),))


def _by(request: WebRequest, methods: tuple[str, ...], make: Callable[[], WebAnswer]) -> WebAnswer:
    if request.method in methods:
        return make()
    allowed = (("Allow", ", ".join(methods)),)  # RFC 9110 section 15.5.6
    return WebAnswer(status=405, body=b"Not by this method.\n", headers=allowed)


def _says(status: int, words: str | bytes, *, media_type: str = TEXT, why: str = "", is_line: bool = True) -> WebAnswer:
    body = words.encode("utf-8") if isinstance(words, str) else words
    if is_line and not body.endswith(b"\n"):
        body += b"\n"
    headers = () if status == 200 else (("Cache-Control", "no-store"),)
    return WebAnswer(status=status, body=body, media_type=media_type, headers=headers, why=why)


def _as_json(status: int, value: object) -> WebAnswer:
    headers = (("Cache-Control", "no-store"),)
    return WebAnswer(status=status, body=json.dumps(value).encode("ascii") + b"\n", media_type=JSON, headers=headers)


def _with_host(said: WebAnswer, host: str) -> WebAnswer:
    return WebAnswer(
        status=said.status, body=said.body, media_type=said.media_type, headers=said.headers, why=said.why, host=host
    )
