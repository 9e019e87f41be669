"""Answers as name servers send them, built with Twisted's own encoder, so that ours is not its own judge."""

from __future__ import annotations

from twisted.names import dns

__all__ = ["EMPTY_OPT", "mx", "opt", "record", "reply", "soa", "txt"]

NUMBERS = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "RRSIG": 46, "TLSA": 52}
PAYLOADS = {
    "A": dns.Record_A,
    "AAAA": dns.Record_AAAA,
    "CNAME": dns.Record_CNAME,
    "PTR": dns.Record_PTR,
    "NS": dns.Record_NS,
}


def record(owner, type, data, ttl=300):
    """One record; `data` is the text for A, AAAA, CNAME, PTR and NS, else the octets."""
    number = NUMBERS.get(type, type)
    payload = dns.UnknownRecord(data, ttl) if isinstance(data, bytes) else PAYLOADS[type](data, ttl)
    return dns.RRHeader(owner, number, dns.IN, ttl, payload)


def mx(owner, preference, exchange, ttl=300):
    return dns.RRHeader(owner, dns.MX, dns.IN, ttl, dns.Record_MX(preference, exchange, ttl))


def txt(owner, *strings, ttl=300):
    return dns.RRHeader(owner, dns.TXT, dns.IN, ttl, dns.Record_TXT(*strings, ttl=ttl))


def soa(owner, minimum, ttl=3600):
    payload = dns.Record_SOA(f"ns.{owner}", f"hostmaster.{owner}", 1, 7200, 3600, 604800, minimum, ttl)
    return dns.RRHeader(owner, dns.SOA, dns.IN, ttl, payload)


def opt(data=b"", upper_rcode=0):
    return dns.RRHeader(b"", 41, 1232, upper_rcode << 24, dns.UnknownRecord(data))


EMPTY_OPT = opt()


def reply(query, *answers, rcode=0, authority=(), additional=(EMPTY_OPT,), ad=False, tc=False, aa=False, ra=True):
    """The answer to a query (its octets)."""
    message = dns.Message()
    message.fromStr(query)
    message.maxSize = 0
    message.answer, message.recAv, message.auth, message.trunc = 1, ra, aa, tc
    message.rCode, message.authenticData = rcode, ad
    message.answers, message.authority, message.additional = list(answers), list(authority), list(additional)
    return message.toStr()
