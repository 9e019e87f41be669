"""Mail addresses: local part and domain (RFC 5321 section 4.1.2; RFC 6531 section 3.3).

    Mailbox        = Local-part "@" ( Domain / address-literal )
    Local-part     = Dot-string / Quoted-string       ; MAY be case-sensitive
    Dot-string     = Atom *("."  Atom)
    Domain         = sub-domain *("." sub-domain)
    sub-domain     = Let-dig [Ldh-str]
    address-literal  = "[" ( IPv4-address-literal / IPv6-address-literal / General-address-literal ) "]"

RFC 6531 adds UTF8-non-ascii to atext, qtextSMTP and sub-domain (U-labels).  The null reverse-path is no Address: it is None.

Telephone companies have given out millions of addresses with dots that no Dot-string has: ``a..b``, ``.a``, ``a.``.  They are
taken, and go on as they came (`Address.path`).  In text that we write they are quoted, which is the same address to everybody.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass, field

import idna

from mailserver.mail.quick import quick

__all__ = ["Address", "AddressError", "normal_domain", "normal_local", "normal_name", "normal_names", "parse_domain"]

LOCAL_PART_OCTETS = 64  # RFC 5321 section 4.5.3.1.1
DOMAIN_OCTETS = 255  # section 4.5.3.1.2
PATH_OCTETS = 254  # section 4.5.3.1.3: 256 with the angle brackets

ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
ATOMS_AND_DOTS = re.compile(rf"[{ATEXT}.]+")
ATOMS_AND_DOTS_UTF8 = re.compile(rf"[{ATEXT}.\u0080-\U0010ffff]+")
DOT_STRING_UTF8 = re.compile(rf"[{ATEXT}\u0080-\U0010ffff]+(?:\.[{ATEXT}\u0080-\U0010ffff]+)*")
QUOTED_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\[ -~])*)"')
QUOTED_STRING_UTF8 = re.compile(r'"((?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*)"')
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"  # RFC 1035 section 2.3.4: up to 63 octets
DOMAIN = re.compile(rf"{LABEL}(?:\.{LABEL})*")
GENERAL_LITERAL = re.compile(r"[A-Za-z0-9\-]*[A-Za-z0-9]:[!-Z^-~]+")
PLAIN = re.compile(rf"([{ATEXT}]+(?:\.[{ATEXT}]+)*)@({DOMAIN.pattern})")  # the common case, in one match
# What no printed line can hold: the C1 controls, line and paragraph ends, changes of the writing direction, lone surrogates.
UNPRINTABLE = re.compile("[\u0080-\u009f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")


class AddressError(ValueError):
    """The text is not an address.  The message says why, in words fit for a log."""


@quick
@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox name.  `local` is unquoted, `domain` is as it was given; "" only for `<postmaster>` (section 4.1.1.3).

    `bare`: it came without quotes, although `local` is no Dot-string.  That makes no other address of it.
    """

    local: str
    domain: str
    bare: bool = field(default=False, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, utf8: bool = False) -> Address:
        """Parse ``local@domain`` without angle brackets.  `utf8` allows what RFC 6531 adds.  Raises `AddressError`."""
        if len(text) > PATH_OCTETS:
            raise AddressError("the path is longer than 256 octets")
        plain = PLAIN.fullmatch(text)
        if plain is not None and plain.end(1) <= LOCAL_PART_OCTETS:
            return cls(plain[1], plain[2])
        return _parse_with_care(text, utf8)

    @property
    def is_literal(self) -> bool:
        """The domain is an address literal, such as ``[192.0.2.1]``."""
        return self.domain.startswith("[")

    @property
    def is_ascii(self) -> bool:
        """It can travel without SMTPUTF8."""
        return self.local.isascii() and self.domain.isascii()

    @property
    def domain_key(self) -> str:
        """The domain as look-ups compare it: lower case, A-labels."""
        return normal_domain(self.domain)

    @property
    def has_odd_dots(self) -> bool:
        """A dot at an end of the local part, or one behind another."""
        local = self.local
        return local.startswith(".") or local.endswith(".") or ".." in local

    @property
    def path(self) -> str:
        """As it goes on in a command: without quotes where it came so."""
        is_bare = self.bare and ATOMS_AND_DOTS_UTF8.fullmatch(self.local) is not None
        return f"{self.local}@{self.domain}" if is_bare else str(self)

    def __str__(self) -> str:
        local = self.local
        if not (local.isalnum() or DOT_STRING_UTF8.fullmatch(local)):
            local = _quoted(local)
        return f"{local}@{self.domain}" if self.domain else local


def normal_domain(domain: str) -> str:
    """Lower case, A-labels (RFC 5890, IDNA 2008 after the mapping of UTS 46); an address literal in lower case, IPv6 compressed.

    Raises `AddressError` for impossible labels.
    """
    if domain.isascii():
        lower = domain.lower()
        return _normal_ipv6(lower) if lower.startswith("[ipv6:") else lower
    try:
        name = idna.encode(domain, uts46=True).decode("ascii").lower()
    except UnicodeError as error:  # idna's errors are of this kind
        raise AddressError(f"not an internationalised domain name: {error}") from None
    if DOMAIN.fullmatch(name) is None:
        raise AddressError("not an internationalised domain name")
    return name


def normal_local(local: str) -> str:
    """A local part as our own look-ups compare it: no difference of case (RFC 5321 section 2.4 leaves that to the host that
    delivers), and where it is not ASCII the username profile of RFC 8265 section 3.3 (width and case mapped, NFC).
    """
    if local.isascii():
        return local.lower()
    from precis_i18n import get_profile  # here, because its tables take time and room that ASCII mail never needs

    try:
        return str(get_profile("UsernameCaseMapped").enforce(local))
    except UnicodeError:  # a character that no user name may hold: still one form, so that a catch-all can take it
        return unicodedata.normalize("NFC", local).lower()


def normal_names(address: Address) -> tuple[str, str]:
    """Local part and domain as our own look-ups compare them.  Raises `AddressError` for an impossible domain."""
    local, domain = address.local, address.domain
    if local.isascii() and domain.isascii() and not domain.startswith("["):
        return local.lower(), domain.lower()
    return normal_local(local), normal_domain(domain)


def normal_name(address: Address) -> str:
    """The address as our own look-ups compare it.  Raises `AddressError` for an impossible domain."""
    return f"{normal_local(address.local)}@{address.domain_key}"


def parse_domain(text: str, utf8: bool = False) -> str:
    """Check a domain or an address literal (section 4.1.2, 4.1.3); return it unchanged.  Raises `AddressError`."""
    if _octets(text) > DOMAIN_OCTETS:
        raise AddressError("the domain is longer than 255 octets")
    if text.startswith("["):
        _check_literal(text)
    elif text.isascii():
        if DOMAIN.fullmatch(text) is None:
            raise AddressError("not a domain name")
    elif not utf8:
        raise AddressError("a domain with non-ASCII characters needs SMTPUTF8")
    else:
        normal_domain(text)
    return text


def _parse_with_care(text: str, utf8: bool) -> Address:
    if not utf8 and not text.isascii():
        raise AddressError("an address with non-ASCII characters needs SMTPUTF8")
    if _octets(text) > PATH_OCTETS:
        raise AddressError("the path is longer than 256 octets")
    quoted = (QUOTED_STRING_UTF8 if utf8 else QUOTED_STRING).match(text)
    if quoted is not None:
        local, end, bare = re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end(), False
    else:
        atoms = (ATOMS_AND_DOTS_UTF8 if utf8 else ATOMS_AND_DOTS).match(text)
        if atoms is None:
            raise AddressError("not a local part")
        local, end, bare = atoms[0], atoms.end(), DOT_STRING_UTF8.fullmatch(atoms[0]) is None
    if text[end : end + 1] != "@":
        raise AddressError("no @ after the local part")
    if _octets(text[:end]) > LOCAL_PART_OCTETS:
        raise AddressError("the local part is longer than 64 octets")
    return Address(local, parse_domain(text[end + 1 :], utf8), bare)


def _octets(text: str) -> int:
    """The length on the wire.  Raises `AddressError` for what should never be on a wire."""
    if text.isascii():
        return len(text)
    if UNPRINTABLE.search(text):
        raise AddressError("a control character")
    return len(text.encode())


def _normal_ipv6(literal: str) -> str:
    try:
        return f"[ipv6:{ipaddress.IPv6Address(literal[6:-1]).compressed}]"
    except ipaddress.AddressValueError:
        return literal


def _check_literal(text: str) -> None:
    inner = text[1:-1]
    if not text.endswith("]") or not text.isascii():
        raise AddressError("an address literal ends with ]")
    try:
        if inner[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(inner[5:])
            if "%" in inner:
                raise AddressError("an address literal has no zone")
        elif GENERAL_LITERAL.fullmatch(inner) is None:
            ipaddress.IPv4Address(inner)
    except ipaddress.AddressValueError:
        raise AddressError("not an address literal") from None


def _quoted(local: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
