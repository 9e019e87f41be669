"""TLS of the listeners: certificates on disk, OpenSSL's contexts, and what is known of a connection after its handshake.

In the order in which they are read:

* `identity`: a certificate with its chain and its private key, read from PEM files and checked
* `certificates`: the certificates of the listeners: read at the start, and again whenever their files change
* `contexts`: OpenSSL's contexts for one set of certificates: one for each name and each mode of asking clients for
  certificates
* `facts`: what is known of a connection after its handshake, and why one has failed
* `soundness`: doubts about usable certificates: each is a sentence that names the file
* `issued`: certificates that a CA has issued to us, and our keys, on the disk
* `self_signed`: a self-signed certificate where none is configured
"""

from mailserver.tls.certificates import Certificates, Sources
from mailserver.tls.contexts import ClientCertificates
from mailserver.tls.identity import IdentityError, Pair
from mailserver.tls.self_signed import self_signed_pair

__all__ = ["Certificates", "ClientCertificates", "IdentityError", "Pair", "Sources", "self_signed_pair"]
