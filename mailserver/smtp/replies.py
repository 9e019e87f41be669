"""The one catalogue of replies.

Each has its code (RFC 5321 section 4.2), its enhanced code (RFC 3463, RFC 5248) and words that give away neither versions nor
causes.  Nothing that the peer sent is put into a reply, so no control or 8-bit octet can come back.
"""

from __future__ import annotations

from mailserver.mail.reply import Reply

__all__ = [
    "ANOTHER_TRANSACTION",
    "ARGUMENT_NOT_ALLOWED",
    "AUTH_ALREADY",
    "AUTH_BAD_BASE64",
    "AUTH_CANCELLED",
    "AUTH_FAILED",
    "AUTH_LINE_TOO_LONG",
    "AUTH_MALFORMED",
    "AUTH_MECHANISM_UNKNOWN",
    "AUTH_NEEDS_TLS",
    "AUTH_SLOW_DOWN",
    "AUTH_SUCCEEDED",
    "AUTH_SYNTAX",
    "AUTH_TOO_WEAK",
    "AUTH_UNAVAILABLE",
    "BAD_LINE_END",
    "BAD_OCTETS",
    "BAD_PARAMETER",
    "BAD_RECIPIENT",
    "BAD_SENDER",
    "BARE_LINE_END_IN_CONTENT",
    "BDAT_SYNTAX",
    "BINARY_NEEDS_BDAT",
    "BOUNCES_ALONE",
    "CANNOT_VERIFY",
    "CHUNK_RECEIVED",
    "COMMAND_NOT_OFFERED",
    "COMMAND_UNKNOWN",
    "DATA_AFTER_BDAT",
    "GOODBYE",
    "EARLY_TALKER",
    "HEADER_TOO_LARGE",
    "HELLO_DEFERRED",
    "HELLO_REFUSED",
    "HELLO_SYNTAX",
    "HELLO_WRONG_PROTOCOL",
    "HELP_LMTP",
    "HELP_SMTP",
    "LINE_TOO_LONG",
    "LOCAL_ERROR",
    "LOCAL_ERROR_CLOSING",
    "MAIL_SYNTAX",
    "MESSAGE_TOO_LARGE",
    "NO_EXPANSION",
    "NO_VALID_RECIPIENTS",
    "NO_VALID_RECIPIENTS_503",
    "NUL_IN_CONTENT",
    "OK",
    "ONE_EACH",
    "PARAMETER_UNKNOWN",
    "PEER_DEFERRED",
    "PEER_DISCONNECTED",
    "PEER_REFUSED",
    "RCPT_SYNTAX",
    "RECIPIENT_OK",
    "SAY_HELLO_FIRST",
    "SAY_MAIL_FIRST",
    "SENDER_OK",
    "SHUTTING_DOWN",
    "START_CONTENT",
    "ARGUMENT_NEEDED",
    "TIMEOUT",
    "TLS_ALREADY",
    "TLS_READY",
    "TLS_REQUIRED",
    "TLS_UNAVAILABLE",
    "TOO_MANY_CONNECTIONS",
    "TOO_MANY_CONNECTIONS_FROM_NETWORK",
    "TOO_MANY_ERRORS",
    "TOO_MANY_FAILED_LOGINS",
    "TOO_MANY_MESSAGES",
    "TRANSACTION_OPEN",
    "UTF8_NEEDED",
    "allowance_spent",
    "authentication_required",
    "bad_address",
    "cannot_check_sender",
    "cannot_process",
    "cannot_route",
    "deferred_by_policy",
    "disconnected_by_policy",
    "greeting",
    "header_from_not_owned",
    "header_not_understood",
    "queued",
    "refused_by_policy",
    "relaying_denied",
    "sender_not_owned",
    "storage_broken",
    "storage_full",
    "too_many_hops",
    "too_many_recipients",
]

ANOTHER_TRANSACTION = "4.5.3"
"""The enhanced code of recipients who are for another transaction (RFC 3463 section 3.6)."""

# Positive and intermediate.  354 has no enhanced code (RFC 2034 section 4).
OK = Reply.of(250, "2.0.0", "OK")
GOODBYE = Reply.of(221, "2.0.0", "Goodbye")
START_CONTENT = Reply.of(354, "", "Send the message, end it with <CRLF>.<CRLF>")
ONE_EACH = Reply.of(353, "", "One answer for each recipient follows, and one for all")
CHUNK_RECEIVED = Reply.of(250, "2.0.0", "Chunk received")
HELP_SMTP = Reply.of(
    214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY EXPN HELP QUIT STARTTLS AUTH", "See RFC 5321"
)
HELP_LMTP = Reply.of(
    214, "2.0.0", "LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY EXPN HELP QUIT STARTTLS AUTH", "See RFC 2033"
)

# The line itself.
COMMAND_UNKNOWN = Reply.of(500, "5.5.2", "Command not recognised")
BAD_LINE_END = Reply.of(500, "5.5.2", "A line ends with CRLF, and holds no other CR or LF")
BAD_OCTETS = Reply.of(500, "5.5.2", "The command holds octets that are not allowed")
LINE_TOO_LONG = Reply.of(500, "5.5.2", "The command line is too long")
AUTH_LINE_TOO_LONG = Reply.of(500, "5.5.6", "The authentication line is too long")  # RFC 4954 section 6
COMMAND_NOT_OFFERED = Reply.of(502, "5.5.1", "This command is not offered")
HELLO_WRONG_PROTOCOL = Reply.of(500, "5.5.1", "Not a greeting of this protocol")  # RFC 2033 section 4.1

# Arguments.
ARGUMENT_NOT_ALLOWED = Reply.of(501, "5.5.4", "This command takes no argument")
HELLO_SYNTAX = Reply.of(501, "5.5.4", "A host name or an address literal is needed")
MAIL_SYNTAX = Reply.of(501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
RCPT_SYNTAX = Reply.of(501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]")
BDAT_SYNTAX = Reply.of(501, "5.5.4", "Syntax: BDAT octets [LAST]")
ARGUMENT_NEEDED = Reply.of(501, "5.5.4", "An argument is needed")
BAD_SENDER = Reply.of(501, "5.1.7", "The sender's address is not well formed")
BAD_RECIPIENT = Reply.of(501, "5.1.3", "The recipient's address is not well formed")
UTF8_NEEDED = Reply.of(553, "5.6.7", "A non-ASCII address needs SMTPUTF8")  # RFC 6531 section 3.5
PARAMETER_UNKNOWN = Reply.of(555, "5.5.4", "A parameter is not recognised or not offered")
BAD_PARAMETER = Reply.of(501, "5.5.4", "A parameter is malformed or appears twice")

# The order of commands.
SAY_HELLO_FIRST = Reply.of(503, "5.5.1", "Say hello first")
SAY_MAIL_FIRST = Reply.of(503, "5.5.1", "MAIL comes first")
TRANSACTION_OPEN = Reply.of(503, "5.5.1", "Not during a transaction")
NO_VALID_RECIPIENTS = Reply.of(554, "5.5.1", "No valid recipients")
NO_VALID_RECIPIENTS_503 = Reply.of(503, "5.5.1", "No valid recipients")
DATA_AFTER_BDAT = Reply.of(503, "5.5.1", "BDAT LAST or RSET is needed to end this transaction")  # RFC 3030 section 2
BINARY_NEEDS_BDAT = Reply.of(503, "5.5.1", "A message with BODY=BINARYMIME needs BDAT")  # RFC 3030 section 3

# Content.
BARE_LINE_END_IN_CONTENT = Reply.of(550, "5.6.0", "The message holds a CR or LF that is not part of CRLF")
NUL_IN_CONTENT = Reply.of(550, "5.6.0", "The message holds a NUL octet")
MESSAGE_TOO_LARGE = Reply.of(552, "5.3.4", "The message is larger than the limit")
HEADER_TOO_LARGE = Reply.of(552, "5.3.4", "The header section is larger than the limit")

# STARTTLS and AUTH.
TLS_ALREADY = Reply.of(503, "5.5.1", "TLS is already active")
AUTH_ALREADY = Reply.of(503, "5.5.1", "Already authenticated")
AUTH_SYNTAX = Reply.of(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
AUTH_MECHANISM_UNKNOWN = Reply.of(504, "5.5.4", "This mechanism is not offered")
AUTH_NEEDS_TLS = Reply.of(538, "5.7.11", "Encryption required for this authentication mechanism")  # RFC 4954 section 6
AUTH_BAD_BASE64 = Reply.of(501, "5.5.2", "Not valid base64")
AUTH_CANCELLED = Reply.of(501, "5.7.0", "Authentication cancelled")

AUTH_SUCCEEDED = Reply.of(235, "2.7.0", "Authentication succeeded")
AUTH_FAILED = Reply.of(535, "5.7.8", "Authentication credentials invalid")
AUTH_MALFORMED = Reply.of(501, "5.5.2", "The response is not well formed")
AUTH_TOO_WEAK = Reply.of(534, "5.7.9", "This authentication mechanism is too weak for this account")
AUTH_UNAVAILABLE = Reply.of(454, "4.7.0", "Authentication is not possible now, please try again later")
AUTH_SLOW_DOWN = Reply.of(454, "4.7.0", "Too many failed log-ins, please try again later")
TOO_MANY_FAILED_LOGINS = Reply.of(421, "4.7.0", "Too many failed log-ins on this connection")
TLS_READY = Reply.of(220, "2.0.0", "Ready to start TLS")
TLS_UNAVAILABLE = Reply.of(454, "4.7.0", "TLS is not available now")  # RFC 3207 section 4
TLS_REQUIRED = Reply.of(530, "5.7.0", "Must issue a STARTTLS command first")  # RFC 3207 section 4

# What a connection and a transaction are told.
SENDER_OK = Reply.of(250, "2.1.0", "Sender OK")
RECIPIENT_OK = Reply.of(250, "2.1.5", "Recipient OK")
BOUNCES_ALONE = Reply.of(550, "5.7.1", "This address takes bounces alone, from the null sender")
CANNOT_VERIFY = Reply.of(252, "2.1.5", "Cannot verify; send a message and see")  # RFC 5321 section 3.5.3
NO_EXPANSION = Reply.of(502, "5.5.1", "Lists are not expanded here")
LOCAL_ERROR = Reply.of(451, "4.3.0", "Local error, please try again later")
LOCAL_ERROR_CLOSING = Reply.of(421, "4.3.0", "Local error, please try again later")
TIMEOUT = Reply.of(421, "4.4.2", "Too slow, closing the connection")
SHUTTING_DOWN = Reply.of(421, "4.3.2", "The service is shutting down, please try again later")  # RFC 5321 section 3.8
TOO_MANY_ERRORS = Reply.of(421, "4.7.0", "Too many errors, closing the connection")
TOO_MANY_MESSAGES = Reply.of(
    421, "4.7.0", "Enough messages on this connection, please open another"
)  # RFC 9422 section 4.1
TOO_MANY_CONNECTIONS = Reply.of(421, "4.3.2", "Too many connections, please try again later")
TOO_MANY_CONNECTIONS_FROM_NETWORK = Reply.of(
    421, "4.7.0", "Too many connections from your network, please try again later"
)
EARLY_TALKER = Reply.of(554, "5.5.1", "You talked before the greeting")  # RFC 5321 section 3.1
PEER_REFUSED = Reply.of(554, "5.7.1", "No mail from you here")  # RFC 5321 section 3.1; RFC 7504
PEER_DISCONNECTED = Reply.of(421, "4.7.0", "Closing the connection")
PEER_DEFERRED = Reply.of(421, "4.7.1", "Please try again later")
HELLO_REFUSED = Reply.of(550, "5.7.1", "No mail from you here")
HELLO_DEFERRED = Reply.of(450, "4.7.1", "Please try again later")


def greeting(hostname: str, lmtp: bool) -> Reply:
    """The first line; the name comes first (RFC 5321 section 4.2)."""
    return Reply.of(220, "", f"{hostname} {'LMTP' if lmtp else 'ESMTP'}")


def queued(id: str) -> Reply:
    """The message is durable."""
    return Reply(250, "2.0.0", (f"OK, queued as {id}",))


def storage_full(id: str) -> Reply:
    """No room on the disk."""
    return Reply.of(452, "4.3.1", f"Not enough room, please try again later ({id})")


def storage_broken(id: str) -> Reply:
    """The disk does not work."""
    return Reply.of(451, "4.3.0", f"Local error, please try again later ({id})")


def cannot_route(id: str) -> Reply:
    """Whether the recipient exists cannot be told now."""
    return Reply.of(451, "4.3.0", f"The recipient cannot be checked now, please try again later ({id})")


def cannot_process(id: str) -> Reply:
    """Something of ours stands in the way of the message."""
    return Reply.of(451, "4.3.5", f"Local error, please try again later ({id})")


def bad_address(id: str) -> Reply:
    """The recipient's domain cannot exist."""
    return Reply.of(553, "5.1.3", f"The recipient's address is not valid ({id})")


def authentication_required(id: str) -> Reply:
    """A submission service serves those it knows (RFC 6409 section 4.3; RFC 4954 section 6)."""
    return Reply.of(530, "5.7.0", f"Authentication required ({id})")


def sender_not_owned(id: str) -> Reply:
    """Who has logged in may not use this reverse-path (RFC 6409 section 6.1)."""
    return Reply.of(553, "5.7.1", f"The sender's address is not yours to use ({id})")


def header_from_not_owned(id: str) -> Reply:
    """Nor this author's address in the header."""
    return Reply.of(550, "5.7.1", f"The address in the From or Sender field is not yours to use ({id})")


def header_not_understood(id: str, words: str) -> Reply:
    """The header does not say whose message it is.  `words` are ours."""
    return Reply.of(550, "5.6.0", f"{words} ({id})")


def cannot_check_sender(id: str) -> Reply:
    """Whether the sender's address is the user's cannot be told now."""
    return Reply.of(451, "4.3.0", f"The sender cannot be checked now, please try again later ({id})")


def allowance_spent(id: str, limit: str) -> Reply:
    """The account has sent enough for now.  `limit` such as "300 messages within an hour"."""
    return Reply.of(450, "4.7.1", f"You may not send more than {limit}, please try again later ({id})")


def relaying_denied(id: str) -> Reply:
    """The recipient is not ours and the peer is not one of those we send for."""
    return Reply.of(550, "5.7.1", f"Relaying denied ({id})")


def not_sent_on(id: str, reason: str) -> Reply:
    """The recipient's route refuses it; `reason` is the administrator's, printable ASCII."""
    return Reply.of(550, "5.7.1", f"{reason or 'Mail for this recipient is not sent on'} ({id})")


def too_many_recipients(id: str) -> Reply:
    """RFC 5321 section 4.5.3.1.10: the client sends another copy to the rest."""
    return Reply.of(452, ANOTHER_TRANSACTION, f"Too many recipients ({id})")


def too_many_hops(id: str) -> Reply:
    """The message goes round (RFC 5321 section 6.3)."""
    return Reply.of(554, "5.4.6", f"Too many Received fields: the message goes round ({id})")


def refused_by_policy(id: str, enhanced: str = "5.7.1") -> Reply:
    """A filter said no; why, the administrator reads with the id."""
    return Reply.of(550, enhanced, f"Refused by policy ({id})")


def disconnected_by_policy(id: str) -> Reply:
    """A filter wants to hear no more of this peer."""
    return Reply.of(421, "4.7.0", f"Closing the connection ({id})")


def deferred_by_policy(id: str, enhanced: str = "4.7.1") -> Reply:
    """A filter said later."""
    return Reply.of(450, enhanced, f"Not now, please try again later ({id})")


def deferred_for_all(id: str) -> Reply:
    """Filters said no to some recipients and later to others.

    One reply speaks for all of them, so it is about the message and no mailbox (RFC 5321 sections 4.2.3, 4.3.2), and names no
    reason, since there are several.
    """
    return Reply.of(451, "4.7.1", f"Not now for any of the recipients, please try again later ({id})")
