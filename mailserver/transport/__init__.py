"""What two rooms need of a socket.

In the order in which they are read:

* `verified`: a TLS client that accepts a certificate of the right name alone
* `writing`: writes straight to the socket where nothing waits to be written
"""
