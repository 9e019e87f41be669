"""What several rooms need of a socket and of TLS.

In the order in which they are read:

* `certificate_faults`: what can be wrong with a certificate, and the words for it
* `verified`: a TLS client that accepts only a certificate with the right name
* `channel_bindings`: what both ends of a TLS connection can compute
* `proxy_header`: the header of the PROXY protocol, versions 1 and 2, read without I/O
* `bounded`: a connection that takes so many octets and no more
* `writing`: writes straight to the socket where nothing waits to be written
* `recording`: what is said to one chosen peer, kept for a person who looks on
"""
