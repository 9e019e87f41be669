"""Fetches by https from hosts that strangers have named.

In the order in which they are read:

* `place`: where a URL leads, if it is one that may be fetched
* `client`: the client: one look-up, checked addresses, a verified certificate, one answer within its bounds
"""

from mailserver.fetching.client import Fetching

__all__ = ["Fetching"]
