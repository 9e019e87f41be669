"""The filters that come with the server; each is a plugin like any other.

In the order in which they are read:

* `denylist`: refuses or defers peers by network or HELO name, and senders by address or domain
* `null_mx`: refuses senders whose domain takes no mail (RFC 7505 section 4.2)
"""
