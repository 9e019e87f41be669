"""Fetches by https from hosts that strangers have named.

In the order in which they are read:

* `place`: where a URL leads, if it is one that may be fetched
* `bounded`: a connection that takes so many octets and no more
* `client`: the client: one look-up, checked addresses, a verified certificate, one answer within its bounds
"""

from mailserver.fetching.client import Fetching

__all__ = ["Fetching"]
