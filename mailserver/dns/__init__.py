"""Asking the DNS: a stub resolver that leaves recursion and validation to the name servers it is given.

In the order in which they are read:

* `resolver`: the resolver: answers from its cache, puts each other question to a name server once, however many ask for
  it
* `cache`: answers that are still true
* `lookup`: one question on its way: whom it was put to, where its chain of CNAMEs has led, what is to be done next
* `servers`: the name servers: which there are, which is asked next, which are given a rest
* `edns`: which name servers are asked without EDNS for a while: those that are silent, or refuse, only where a question
  has it
* `datagrams`: questions by UDP: a handful of connected sockets for each server
* `streams`: questions by TCP, for answers that do not fit into a datagram (RFC 7766): a connection for each
* `wire`: DNS messages as octets (RFC 1035 section 4): a question out, the records of an answer in
* `reading`: what a message says about a name: an answer, a name under which to ask on, or that this server cannot tell
* `special`: names that no name server elsewhere is asked about (RFC 6761 section 6): localhost, .invalid, .test
"""

from mailserver.dns.reading import reverse_name
from mailserver.dns.resolver import Resolver, ResolverCounts
from mailserver.dns.servers import NameServer

__all__ = ["ResolverCounts", "Resolver", "NameServer", "reverse_name"]
