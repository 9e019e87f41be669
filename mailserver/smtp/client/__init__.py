"""The client's side of SMTP and LMTP.  What is imported from here is the public face.

In the order in which they are read:

* `session`: the client's side of SMTP and LMTP, without I/O: octets in, events out, requests in, octets out
* `states`: a client's conversation: its states, what moves it, and the table of legal moves
* `events`: what a client session tells its caller, as values
* `request`: what a caller wants sent, held against what the peer offers, and the commands that say it
* `offer`: what a peer offers in its answer to EHLO or LHLO (RFC 5321 section 4.1.1.1)
* `replies`: replies as a peer says them, read with bounds
* `transaction`: one request: which recipients have an outcome, which is being asked about, which come later
* `content`: content on its way out: DATA with its dots and its end, or one chunk of BDAT
* `auth`: AUTH (RFC 4954), around a SASL exchange of the caller's
* `limits`: how much a client takes from its peer, and how long it waits
* `dialogue`: the commands and replies of a connection for people, without content and secrets
"""

from mailserver.smtp.client.session import (
    UNCERTAIN,
    ClientLimits,
    ClientSession,
    LocalProtocolError,
    Offer,
    Phase,
    Request,
)

__all__ = [
    "UNCERTAIN",
    "ClientLimits",
    "ClientSession",
    "LocalProtocolError",
    "Offer",
    "Phase",
    "Request",
]
