"""What several rooms need of a socket and of TLS.

In the order in which they are read:

* `certificate_faults`: what can be wrong with a certificate, and the words for it
* `verified`: a TLS client that accepts only a certificate with the right name
* `writing`: writes straight to the socket where nothing waits to be written
* `recording`: what is said to one chosen peer, kept for a person who looks on
"""
