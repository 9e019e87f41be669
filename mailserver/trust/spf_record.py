"""An SPF record, read (RFC 7208 sections 3 to 7), and the macros in it expanded.

    record           = version terms *SP              ; version = "v=spf1"
    terms            = *( 1*SP ( directive / modifier ) )
    directive        = [ qualifier ] mechanism        ; qualifier = "+" / "-" / "?" / "~"
    modifier         = name "=" macro-string          ; redirect= and exp= at most once
    domain-spec      = macro-string ( "." toplabel [ "." ] / macro-expand )

The whole record is read before a term of it counts: one fault anywhere is a permerror (section 4.6).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

__all__ = ["Network", "SPFFault", "SPFRecord", "SPFTerm", "expand", "is_record", "parse_record"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

QUALIFIERS = {"+": "pass", "-": "fail", "?": "neutral", "~": "softfail"}
MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._\-]*)=(.*)")
DIRECTIVE = re.compile(r"([+\-?~]?)([A-Za-z][A-Za-z0-9]*)(.*)")
# Section 7.1: c, r and t are for explanations only, which are not fetched.
MACRO = re.compile(r"%(?:\{([slodiphvSLODIPHV])([0-9]*)(r?)([.\-+,/_=]*)\}|([%_\-]))", re.IGNORECASE)
MACRO_OF_EXPLANATION = re.compile(r"%\{[crt][0-9]*r?[.\-+,/_=]*\}", re.IGNORECASE)
LITERAL = re.compile(r"[!-$&-~]*")  # macro-literal: printable, without "%"
TOP_LABEL = re.compile(r"(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9\-]*[A-Za-z0-9])")
WITH_PREFIXES = re.compile(r"(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?")
ADDRESS = re.compile(r":([0-9A-Fa-f.:]+)(?:/(0|[1-9][0-9]{0,2}))?")
DELIMITERS = "."
NAME_OCTETS = 253
REMEMBERED = 1000  # records, of those who send much: they come with each message
REMEMBERED_OCTETS = 2048  # a longer one is read anew each time
PLAIN = {"%": "%", "_": " ", "-": "%20"}


class SPFFault(ValueError):
    """The record is not valid: a permerror."""


@dataclass(frozen=True, slots=True)
class SPFTerm:
    """A directive.  `result` is what a match means; `domain` the domain-spec with its macros, "" for the current domain.

    `network` is that of ip4 and ip6; `prefixes` are the lengths for IPv4 and IPv6 addresses of a and mx.
    """

    text: str
    result: str
    mechanism: str
    domain: str = ""
    network: Network | None = None
    prefixes: tuple[int, int] = (32, 128)


@dataclass(frozen=True, slots=True)
class SPFRecord:
    """A record.  `redirect` is "" where there is none."""

    terms: tuple[SPFTerm, ...]
    redirect: str = ""


def is_record(text: bytes) -> bool:
    """Whether a TXT record is one of SPF (section 4.5)."""
    return text[:7].lower() in (b"v=spf1", b"v=spf1 ")


def parse_record(octets: bytes) -> SPFRecord:
    """Read a record for which `is_record` is true.  Raises `SPFFault`."""
    return _remembered(octets) if len(octets) <= REMEMBERED_OCTETS else _read(octets)


@functools.lru_cache(REMEMBERED)
def _remembered(octets: bytes) -> SPFRecord:
    return _read(octets)


def _read(octets: bytes) -> SPFRecord:
    try:
        text = octets.decode("ascii")
    except UnicodeDecodeError:
        raise SPFFault("the record is not ASCII") from None
    terms: list[SPFTerm] = []
    modifiers: dict[str, str] = {}
    for term in text[6:].split(" "):
        if not term:
            continue
        modifier = MODIFIER.fullmatch(term)
        if modifier is None:
            terms.append(_directive(term))
            continue
        name, value = modifier[1].lower(), modifier[2]
        if name not in ("redirect", "exp"):
            _check_macros(MACRO_OF_EXPLANATION.sub("", value))
            continue
        if name in modifiers:
            raise SPFFault(f"{name}= is there twice")
        _check_domain(value, term)
        modifiers[name] = value
    return SPFRecord(tuple(terms), modifiers.get("redirect", ""))


def _directive(text: str) -> SPFTerm:
    found = DIRECTIVE.fullmatch(text)
    if found is None:
        raise _fault(text)
    result, mechanism, rest = QUALIFIERS[found[1] or "+"], found[2].lower(), found[3]
    match mechanism:
        case "all" if not rest:
            return SPFTerm(text, result, mechanism)
        case "include" | "exists" if rest.startswith(":"):
            _check_domain(rest[1:], text)
            return SPFTerm(text, result, mechanism, rest[1:])
        case "ptr":
            return SPFTerm(text, result, mechanism, _optional_domain(rest, text))
        case "a" | "mx":
            return _with_prefixes(text, result, mechanism, rest)
        case "ip4" | "ip6":
            return SPFTerm(text, result, mechanism, network=_network(text, mechanism, rest))
    raise _fault(text)


def _with_prefixes(text: str, result: str, mechanism: str, rest: str) -> SPFTerm:
    found = WITH_PREFIXES.fullmatch(rest)
    if found is None:
        raise _fault(text)
    prefixes = int(found[2] or 32), int(found[3] or 128)
    if prefixes[0] > 32 or prefixes[1] > 128:
        raise _fault(text)
    return SPFTerm(text, result, mechanism, _optional_domain(found[1], text), prefixes=prefixes)


def _optional_domain(rest: str, text: str) -> str:
    if not rest:
        return ""
    if not rest.startswith(":"):
        raise _fault(text)
    _check_domain(rest[1:], text)
    return rest[1:]


def _network(text: str, mechanism: str, rest: str) -> Network:
    found = ADDRESS.fullmatch(rest)
    if found is None:
        raise _fault(text)
    kind = ipaddress.IPv4Network if mechanism == "ip4" else ipaddress.IPv6Network
    try:
        return kind(found[1] if found[2] is None else f"{found[1]}/{found[2]}", strict=False)
    except ValueError:
        raise _fault(text) from None


def _check_domain(spec: str, text: str) -> None:
    """A domain-spec: ends with a label that is no number, or with a macro."""
    _check_macros(spec)
    last = None
    for last in MACRO.finditer(spec):  # noqa: B007  # the last one is what is looked for
        pass
    if last is not None and last.end() == len(spec) and last[1]:
        return
    literal = spec[last.end() if last else 0 :].removesuffix(".")
    before, dot, top = literal.rpartition(".")
    if not (dot and (before or last)) or TOP_LABEL.fullmatch(top) is None:
        raise _fault(text)


def _check_macros(text: str) -> None:
    for found in MACRO.finditer(text):
        if found[2] and (int(found[2][:4]) == 0 or len(found[2]) > 3):
            raise _fault(text)
    if LITERAL.fullmatch(MACRO.sub("", text)) is None:
        raise _fault(text)


def _fault(text: str) -> SPFFault:
    return SPFFault(f"it holds {text[:60]!r}")


def expand(spec: str, values: Mapping[str, str]) -> str:
    """A domain-spec with its macros replaced: `values` by the letters in lower case (section 7).

    A name that is too long loses labels from the left (section 7.3).
    """

    def replaced(found: re.Match[str]) -> str:
        if found[5]:
            return PLAIN[found[5]]
        parts = re.split(f"[{re.escape(found[4] or DELIMITERS)}]", values[found[1].lower()])
        if found[3]:
            parts.reverse()
        if found[2]:
            parts = parts[-int(found[2]) :]
        text = ".".join(parts)
        return quote(text, safe="-._~") if found[1].isupper() else text

    name = MACRO.sub(replaced, spec).removesuffix(".")
    while len(name) > NAME_OCTETS and "." in name:
        name = name.partition(".")[2]
    return name
