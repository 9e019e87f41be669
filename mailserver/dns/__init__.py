"""Asking the DNS: a stub resolver that leaves recursion and validation to the name servers it is given.

`Resolver` is the part that others use; it provides `IResolver`.  A question becomes a `lookup`, which says after each
message what is to be done next.  Below it, without I/O: `wire` (octets to records and back), `reading` (a message to an
answer), `cache`, `servers` (which one is asked next, /etc/resolv.conf), `edns` (which is asked without EDNS), `special` (names
that are not asked about).  `datagrams` and `streams` are the two ways to a server.
"""

from mailserver.dns.reading import reverse_name
from mailserver.dns.resolver import Counts, Resolver
from mailserver.dns.servers import Server

__all__ = ["Counts", "Resolver", "Server", "reverse_name"]
