"""The words of the protocol as constants: verbs, ports, reply codes and what each code means.

One list for all who speak, take apart or build SMTP.  A verb or code stands here where an RFC or common servers have it, whether
or not this server says it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["REPLY_CODE_DESCRIPTIONS", "Port", "ReplyCode", "CommandVerb", "reply_code_description"]


class Port(enum.IntEnum):
    """Where SMTP and LMTP are spoken."""

    LMTP = 24  # private mail systems; the custom of Dovecot and Cyrus
    SMTP = 25
    SUBMISSIONS = 465  # TLS from the first octet (RFC 8314 section 3.3)
    SUBMISSION = 587  # RFC 6409 section 3.1


class CommandVerb(enum.StrEnum):
    """The verbs of commands."""

    EHLO = "EHLO"
    HELO = "HELO"
    LHLO = "LHLO"  # RFC 2033 section 4.1
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"  # RFC 3030 section 2
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    EXPN = "EXPN"
    HELP = "HELP"
    QUIT = "QUIT"
    STARTTLS = "STARTTLS"  # RFC 3207 section 4
    AUTH = "AUTH"  # RFC 4954 section 4
    # Not spoken by this server itself: extensions …
    ATRN = "ATRN"
    BURL = "BURL"
    ETRN = "ETRN"
    XCLIENT = "XCLIENT"  # Postfix
    XFORWARD = "XFORWARD"  # Postfix
    # … and what RFC 5321 appendix F has put aside.
    SAML = "SAML"
    SEND = "SEND"
    SOML = "SOML"
    TURN = "TURN"

    __hash__ = str.__hash__  # Enum's own is a Python function


class ReplyCode(enum.IntEnum):
    """Reply codes (RFC 5321 section 4.2.3, RFC 4954 section 6, RFC 7504, the registry of RFC 5248)."""

    SYSTEM_STATUS = 211
    HELP = 214
    SERVICE_READY = 220
    CLOSING = 221
    AUTH_SUCCEEDED = 235
    OK = 250
    USER_NOT_LOCAL = 251
    CANNOT_VERIFY = 252
    MESSAGES_PENDING = 253
    AUTH_CHALLENGE = 334
    ONE_EACH = 353
    START_CONTENT = 354
    SERVICE_UNAVAILABLE = 421
    TRANSITION_NEEDED = 432
    MAILBOX_UNAVAILABLE_NOW = 450
    LOCAL_ERROR = 451
    INSUFFICIENT_STORAGE = 452
    NO_MAIL_FOR_HOST = 453
    AUTH_UNAVAILABLE_NOW = 454
    PARAMETERS_NOT_POSSIBLE_NOW = 455
    CANNOT_QUEUE_FOR_HOST = 458
    HOST_NOT_ALLOWED = 459
    COMMAND_UNRECOGNISED = 500
    ARGUMENT_SYNTAX = 501
    COMMAND_NOT_IMPLEMENTED = 502
    BAD_SEQUENCE = 503
    PARAMETER_NOT_IMPLEMENTED = 504
    HOST_TAKES_NO_MAIL = 521
    ENCRYPTION_NEEDED = 523
    ENCRYPTION_NEEDED_FOR_AUTH = 524
    ACCOUNT_DISABLED = 525
    AUTH_REQUIRED = 530
    AUTH_TOO_WEAK = 534
    AUTH_FAILED = 535
    AUTH_NEEDS_ENCRYPTION = 538
    MAILBOX_UNAVAILABLE = 550
    USER_NOT_LOCAL_REFUSED = 551
    STORAGE_EXCEEDED = 552
    MAILBOX_NAME_NOT_ALLOWED = 553
    TRANSACTION_FAILED = 554
    PARAMETERS_UNKNOWN = 555
    DOMAIN_TAKES_NO_MAIL = 556


REPLY_CODE_DESCRIPTIONS: Mapping[int, str] = {
    ReplyCode.SYSTEM_STATUS: "System status, or a reply of the help system",
    ReplyCode.HELP: "Help for people",
    ReplyCode.SERVICE_READY: "The service is ready",
    ReplyCode.CLOSING: "The service closes the connection",
    ReplyCode.AUTH_SUCCEEDED: "Authentication succeeded",
    ReplyCode.OK: "What was asked for is done",
    ReplyCode.USER_NOT_LOCAL: "The user is not local; the message will be forwarded",
    ReplyCode.CANNOT_VERIFY: "The user cannot be verified; the message will be taken",
    ReplyCode.MESSAGES_PENDING: "Messages are pending for this host",
    ReplyCode.AUTH_CHALLENGE: "A challenge; the authentication goes on",
    ReplyCode.ONE_EACH: "One answer for each recipient follows",
    ReplyCode.START_CONTENT: "The content may come; a line with a single dot ends it",
    ReplyCode.SERVICE_UNAVAILABLE: "The service is not available; the connection is closed",
    ReplyCode.TRANSITION_NEEDED: "The password has to be changed, or stored anew for this mechanism",
    ReplyCode.MAILBOX_UNAVAILABLE_NOW: "The mailbox is not available now",
    ReplyCode.LOCAL_ERROR: "A local error; try again later",
    ReplyCode.INSUFFICIENT_STORAGE: "Not enough storage, or too many recipients; try again later",
    ReplyCode.NO_MAIL_FOR_HOST: "There is no mail for this host",
    ReplyCode.AUTH_UNAVAILABLE_NOW: "Authentication or TLS is not possible now",
    ReplyCode.PARAMETERS_NOT_POSSIBLE_NOW: "The parameters cannot be honoured now",
    ReplyCode.CANNOT_QUEUE_FOR_HOST: "Messages for this host cannot be queued",
    ReplyCode.HOST_NOT_ALLOWED: "This host is not allowed to ask for messages",
    ReplyCode.COMMAND_UNRECOGNISED: "The command is not recognised, or its line too long",
    ReplyCode.ARGUMENT_SYNTAX: "A syntax error in the arguments",
    ReplyCode.COMMAND_NOT_IMPLEMENTED: "The command is not implemented",
    ReplyCode.BAD_SEQUENCE: "The command may not come now",
    ReplyCode.PARAMETER_NOT_IMPLEMENTED: "An argument or mechanism is not implemented",
    ReplyCode.HOST_TAKES_NO_MAIL: "The host takes no mail",
    ReplyCode.ENCRYPTION_NEEDED: "Encryption is needed",
    ReplyCode.ENCRYPTION_NEEDED_FOR_AUTH: "Encryption is needed for this authentication mechanism",
    ReplyCode.ACCOUNT_DISABLED: "The account is disabled",
    ReplyCode.AUTH_REQUIRED: "Authentication or TLS is required",
    ReplyCode.AUTH_TOO_WEAK: "The authentication mechanism is too weak",
    ReplyCode.AUTH_FAILED: "Authentication failed",
    ReplyCode.AUTH_NEEDS_ENCRYPTION: "Encryption is needed for this authentication mechanism",
    ReplyCode.MAILBOX_UNAVAILABLE: "The mailbox is not available, or policy refuses",
    ReplyCode.USER_NOT_LOCAL_REFUSED: "The user is not local; try the address that is told",
    ReplyCode.STORAGE_EXCEEDED: "The storage or the limit of size is exceeded",
    ReplyCode.MAILBOX_NAME_NOT_ALLOWED: "The name of the mailbox is not allowed",
    ReplyCode.TRANSACTION_FAILED: "The transaction failed, or there is no service here",
    ReplyCode.PARAMETERS_UNKNOWN: "The parameters of MAIL or RCPT are not recognised",
    ReplyCode.DOMAIN_TAKES_NO_MAIL: "The domain takes no mail",
}

# RFC 5321 section 4.2.1: the first digit says enough for a client.
CLASSES = {2: "done", 3: "more is awaited", 4: "not now", 5: "refused"}


def reply_code_description(code: int) -> str:
    """What a reply code means, in a short sentence; of one in no list, what its first digit says.  Never raises."""
    known = REPLY_CODE_DESCRIPTIONS.get(code)
    if known is not None:
        return known
    meaning = CLASSES.get(code // 100) if 200 <= code <= 599 else None
    return "Not a reply code of SMTP" if meaning is None else f"A code of no list: {meaning}"
