"""Asking the DNS: a stub resolver that leaves recursion and validation to the name servers it is given.

In the order in which they are read:

* `resolver`: answers from the cache; asks each other question once, however many ask for it
* `cache`: the cache of answers and failures
* `lookup`: the state of one question: servers asked, CNAMEs followed, the next step
* `servers`: which name servers there are, which is asked next, which rests
* `validation`: whether a name server validates DNSSEC: what it is asked, and what its answers show
* `beliefs`: whose AD bit is believed, and when servers are examined
* `edns`: which name servers are asked without EDNS for a while
* `datagrams`: questions by UDP over a few connected sockets for each server
* `streams`: questions by TCP, for answers too large for a datagram (RFC 7766)
* `wire`: DNS messages as octets (RFC 1035 section 4): a question out, the records of an answer in
* `reading`: what a message says about a name: an answer, another name to ask for, or nothing
* `special`: names that are never asked about elsewhere (RFC 6761 section 6): localhost, .invalid, .test
* `noted`: what the DNS has told the filters, on the roads
* `recorded`: answers of the DNS, written down and given again
"""

from mailserver.dns.beliefs import Trust
from mailserver.dns.reading import reverse_name
from mailserver.dns.resolver import Resolver, ResolverCounts
from mailserver.dns.servers import NameServer
from mailserver.dns.validation import ProbeNames

__all__ = ["ResolverCounts", "Resolver", "NameServer", "ProbeNames", "Trust", "reverse_name"]
