"""Says whether a host may send for a domain: check_host() of RFC 7208 section 4.

The DNS is asked through `IResolver` and never for more than section 4.6.4 allows: ten terms that ask, two answers without a
record, ten names of an MX or a PTR.  Explanations (exp=) are a stranger's text: they are checked and never fetched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.mail.quick import quick
from mailserver.trust.spf_record import SPFFault, SPFRecord, SPFTerm, expand, is_record, parse_record

__all__ = ["SPFResult", "check_host"]

ASKING_TERMS_MOST = 10
VOID_ANSWERS_MOST = 2
NAMES_MOST = 10
ADDRESSES_MOST = 2000  # that are compared in one evaluation: 110 answers may have thousands each, and the reactor waits
RECORD_OCTETS = 8192
NAME_OCTETS = 253
LABEL_OCTETS = 63
IP = IPv4Address | IPv6Address
Query = Callable[[str, str], Awaitable[Answer]]


@quick
@dataclass(frozen=True, slots=True)
class SPFResult:
    """What came of it: `result` is a word of section 2.6; `mechanism` the term that matched, "default" where none did.

    `reason` is why it is a temperror, a permerror or none.
    """

    result: str
    domain: str
    mechanism: str = ""
    reason: str = ""


class _DNSFault(Exception):
    """A temperror."""


async def check_host(query: Query, ip: IP, domain: str, sender: str, hello: str) -> SPFResult:
    """Whether `ip` may use `domain`, the sender's or the one of HELO.

    `sender` is ``local@domain``; for the identity HELO it is ``postmaster@`` and that name (section 2.4).  Raises nothing.
    """
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    check = _Check(query, ip, sender, hello)
    try:
        return await check.domain(domain)
    except SPFFault as error:
        return SPFResult("permerror", domain, reason=str(error))
    except _DNSFault as error:
        return SPFResult("temperror", domain, reason=str(error))


class _Check:
    """One evaluation, with what it has asked so far."""

    def __init__(self, query: Query, ip: IP, sender: str, hello: str) -> None:
        self._query = query
        self._ip = ip
        self._local, _, self._sender_domain = sender.rpartition("@")
        self._local = self._local or "postmaster"  # section 4.3
        self._hello = hello
        self._terms = 0
        self._void = 0
        self._addresses = 0
        self._names: tuple[str, ...] | None = None

    async def domain(self, domain: str) -> SPFResult:
        """check_host() for a domain, the first or one that is included.  Raises `SPFFault` and `_DNSFault`."""
        if not _is_domain(domain):
            return SPFResult("none", domain, reason="no name of a domain")
        record = await self._record(domain)
        if record is None:
            return SPFResult("none", domain, reason="the domain has no record")
        for term in record.terms:
            if await self._matches(term, domain):
                return SPFResult(term.result, domain, term.text)
        if not record.redirect:
            return SPFResult("neutral", domain, "default")
        self._count()
        target = await self._expand(record.redirect, domain)
        found = await self.domain(target)
        if found.result == "none":
            raise SPFFault("redirect= leads to no record")
        return found

    async def _record(self, domain: str) -> SPFRecord | None:
        """Section 4.4 and 4.5."""
        answer = await self._ask(domain, "TXT")
        found = [text for text in answer.texts if is_record(text)]
        if len(found) > 1:
            raise SPFFault(f"{domain} has {len(found)} records")
        if found and len(found[0]) > RECORD_OCTETS:
            raise SPFFault(f"the record of {domain} is longer than {RECORD_OCTETS} octets")
        return parse_record(found[0]) if found else None

    async def _matches(self, term: SPFTerm, domain: str) -> bool:
        if term.network is not None:
            return self._ip.version == term.network.version and self._ip in term.network
        if term.mechanism == "all":
            return True
        self._count()
        target = await self._expand(term.domain, domain) if term.domain else domain
        match term.mechanism:
            case "include":
                found = await self.domain(target)
                if found.result == "none":
                    raise SPFFault("include: leads to no record")
                return found.result == "pass"
            case "exists":
                return bool((await self._look_up(target, "A")).records)
            case "ptr":
                names = await self._confirmed_names()
                return any(_is_below(name, target.lower()) for name in names)
            case "a":
                return await self._has_address(target, term)
            case _:
                return await self._exchanger_matches(target, term)

    async def _exchanger_matches(self, target: str, term: SPFTerm) -> bool:
        """Section 5.4."""
        answer = await self._look_up(target, "MX")
        exchanges = [one.exchange for one in sorted(answer.exchanges)]
        if len(exchanges) > NAMES_MOST:
            raise SPFFault(f"{target} has more than {NAMES_MOST} mail exchangers")
        for exchange in exchanges:
            if exchange != "." and await self._has_address(exchange, term):
                return True
        return False

    async def _has_address(self, name: str, term: SPFTerm) -> bool:
        version = self._ip.version
        answer = await self._look_up(name, "A" if version == 4 else "AAAA")
        self._addresses += len(answer.records)
        if self._addresses > ADDRESSES_MOST:
            raise SPFFault(f"its names have more than {ADDRESSES_MOST} addresses")
        network = ip_network((self._ip, term.prefixes[0 if version == 4 else 1]), strict=False)
        return any(ip_address(address) in network for address in answer.records)

    async def _confirmed_names(self) -> tuple[str, ...]:
        """Section 5.5: the names of the address that have this address.  What cannot be looked up is left out.

        They are the peer's own, and so count for nobody's limit but that of ten.
        """
        if self._names is None:
            confirmed: list[str] = []
            try:
                answer = await self._query(self._ip.reverse_pointer, "PTR")
            except LookupFailed:
                answer = Answer(())
            for name in answer.records[:NAMES_MOST]:
                try:
                    addresses = await self._query(name, "A" if self._ip.version == 4 else "AAAA")
                except LookupFailed:
                    continue
                if self._ip in map(ip_address, addresses.records[:ADDRESSES_MOST]):
                    confirmed.append(name.lower().rstrip("."))
            self._names = tuple(confirmed)
        return self._names

    async def _expand(self, spec: str, domain: str) -> str:
        if "%" not in spec:
            return spec.removesuffix(".")
        values: dict[str, str] = {
            "s": f"{self._local}@{self._sender_domain}",
            "l": self._local,
            "o": self._sender_domain,
            "d": domain,
            "h": self._hello,
            "i": _dotted(self._ip),
            "v": "in-addr" if self._ip.version == 4 else "ip6",
            "p": "unknown",
        }
        if "%{p" in spec.lower():
            values["p"] = _best_name(await self._confirmed_names(), domain)
        return expand(spec, values)

    async def _look_up(self, name: str, record_type: str) -> Answer:
        """For a mechanism: an answer without records counts (section 4.6.4)."""
        answer = await self._ask(name, record_type)
        if not answer.records:
            self._void += 1
            if self._void > VOID_ANSWERS_MOST:
                raise SPFFault(f"more than {VOID_ANSWERS_MOST} of its names do not exist")
        return answer

    async def _ask(self, name: str, record_type: str) -> Answer:
        try:
            return await self._query(name, record_type)
        except LookupFailed as error:
            raise _DNSFault(str(error)) from error

    def _count(self) -> None:
        self._terms += 1
        if self._terms > ASKING_TERMS_MOST:
            raise SPFFault(f"more than {ASKING_TERMS_MOST} terms ask the DNS")


def _is_domain(name: str) -> bool:
    """Section 4.3: several labels of 1 to 63 octets."""
    labels = name.encode("utf-8", "surrogatepass").removesuffix(b".").split(b".")
    octets = [*map(len, labels)]
    return len(labels) > 1 and 0 < min(octets) and max(octets) <= LABEL_OCTETS and sum(octets) + len(octets) - 1 <= NAME_OCTETS


def _is_below(name: str, domain: str) -> bool:
    return name == domain or name.endswith("." + domain)


def _dotted(ip: IP) -> str:
    return str(ip) if ip.version == 4 else ".".join(ip.exploded.replace(":", ""))


def _best_name(names: tuple[str, ...], domain: str) -> str:
    """Section 7.3: the domain itself, else one below it, else any."""
    key = domain.lower()
    for wanted in ([one for one in names if one == key], [one for one in names if _is_below(one, key)], names):
        if wanted:
            return wanted[0]
    return "unknown"
