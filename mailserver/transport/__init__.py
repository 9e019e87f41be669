"""What two rooms need of a socket.

In the order in which they are read:

* `verified`: TLS as a client that believes a certificate of the right name alone
* `writing`: writes straight to the socket where nothing is waiting to be written
"""
