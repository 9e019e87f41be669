"""The server's side of SMTP and LMTP.  What is imported from here is the public face.

In the order in which they are read:

* `session`: the server's side of SMTP and LMTP, without I/O: octets in, events out, answers in, octets out
* `states`: the conversation: its states, what moves it, and the table of legal moves
* `buffer`: octets received and not yet used, and the lines in them
* `commands`: the arguments of the commands (RFC 5321 section 4.1.1 and the extensions' own RFCs)
* `parameters`: the parameters of MAIL and RCPT (RFC 5321 section 4.1.2; each keyword's own RFC is named at its
  function)
* `data`: the content of a message on the wire: DATA with its dots and its end, BDAT with its counts
* `transaction`: one message from MAIL to its end, and content that is thrown away
* `extensions`: what a server offers, and how EHLO and LHLO announce it (RFC 5321 section 4.1.1.1)
* `additions`: what a server may offer beside the extensions of its own: keywords, parameters and commands that are
  declared as values
* `limits`: how much a session takes from its peer
* `refusals`: what the session answers by itself: to invalid lines, and to commands out of order
"""

from mailserver.smtp.server.session import (
    Extensions,
    LocalProtocolError,
    ServerSession,
    SessionLimits,
)

__all__ = [
    "Extensions",
    "LocalProtocolError",
    "ServerSession",
    "SessionLimits",
]
