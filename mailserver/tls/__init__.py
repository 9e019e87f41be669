"""TLS of the listeners: certificates on disk, OpenSSL's contexts, and what is known of a connection after its handshake."""

from mailserver.tls.certificates import Certificates, Sources
from mailserver.tls.contexts import ClientCertificates
from mailserver.tls.identity import IdentityError, Pair
from mailserver.tls.self_signed import self_signed_pair

__all__ = ["Certificates", "ClientCertificates", "IdentityError", "Pair", "Sources", "self_signed_pair"]
