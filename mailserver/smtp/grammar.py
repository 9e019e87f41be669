"""The syntax of command lines, each production above the pattern that translates it.

Patterns work on text that has been decoded and holds no control characters.  Every repetition of digits is bounded, and no
pattern has two ways to match the same text, so none can be made to backtrack for long.  Case is ignored in ASCII only, where
no long s is an S.
"""

from __future__ import annotations

import re

from mailserver.mail.address import ATEXT, DOMAIN

__all__ = [
    "ADDRESS_TYPE",
    "AUTH",
    "BDAT",
    "CONTROLS",
    "EMBEDDED_CHARACTER",
    "HELLO_NAME",
    "OWN_HELLO_NAME",
    "HEXCHAR",
    "MAIL",
    "MAIL_PLAIN",
    "POSTMASTER",
    "RCPT",
    "RCPT_PLAIN",
    "SIZE_VALUE",
    "SOURCE_ROUTE",
    "UTF8_ADDRESS",
    "XTEXT",
]

# Never part of a command: C0, DEL, C1 and the two Unicode line ends (RFC 5198 section 2, RFC 6532 section 3.1 leaves out more).
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# --- RFC 5321 section 4.1.1.1, read loosely: half of the world's clients have a name that is not a domain ---
#
#   ehlo = "EHLO" SP ( Domain / address-literal ) CRLF
#
# Some say what a person has called the machine, blanks and umlauts included.  Postfix takes all of that, and so do we.
# What a client of ours calls itself is more strict: it goes over the wire as it stands.
HELLO_NAME = re.compile(r"[^ ](?:.{0,253}[^ ])?")
OWN_HELLO_NAME = re.compile(r"[!-~]{1,255}")

# --- RFC 5321 sections 4.1.1.2, 4.1.1.3 and 4.1.2 ---
#
#   mail           = "MAIL FROM:" Reverse-path [SP Mail-parameters] CRLF
#   rcpt           = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path ) [SP Rcpt-parameters] CRLF
#   Reverse-path   = Path / "<>"
#   Path           = "<" [ A-d-l ":" ] Mailbox ">"
#
# Blanks after the colon are no part of this, nor is a path without its brackets, nor a parameter right behind them; but airlines,
# printers and UPSes send them, and everybody takes them.  The path is cut out here (a ">" may stand in a quoted string) and
# parsed by `Address`.  Three groups: the path with brackets, the one without, the parameters.
BRACKETED = r'<((?:[^"<>\\]|"(?:[^"\\]|\\.)*")*)>'
BARE = r'((?:[^"<>\\ ]|"(?:[^"\\]|\\.)*")+)'
PARAMETERS = r"((?: |[A-Za-z0-9][A-Za-z0-9-]*=).*)?"
MAIL = re.compile(rf"(?i:FROM): *(?:{BRACKETED}|{BARE}){PARAMETERS}", re.ASCII)
RCPT = re.compile(rf"(?i:TO): *(?:{BRACKETED}|{BARE}){PARAMETERS}", re.ASCII)

#   Mailbox        = Local-part "@" ( Domain / address-literal )
#
# What nearly every client sends, in one match: a dot-string at a domain, and at most SIZE and a text BODY.  (Only the words
# ignore case: a whole pattern that does costs three times as much.)
MAILBOX = rf"([{ATEXT}]+(?:\.[{ATEXT}]+)*)@({DOMAIN.pattern})"
MAIL_PLAIN = re.compile(
    rf"(?i:FROM):<{MAILBOX}>(?: (?i:SIZE)=([0-9]{{1,20}}))?(?: (?i:BODY)=((?i:7BIT|8BITMIME)))?", re.ASCII
)
RCPT_PLAIN = re.compile(rf"(?i:TO):<{MAILBOX}>", re.ASCII)

#   A-d-l          = At-domain *( "," At-domain )
#   At-domain      = "@" Domain
#
# Accepted and ignored (section 4.1.1.3 and appendix C); no part of it reaches the address.
SOURCE_ROUTE = re.compile(r"@[^@,:<>\" ]+(?:,@[^@,:<>\" ]+)*:")

# Section 4.5.1: "Postmaster" without a domain, in any case.
POSTMASTER = re.compile("postmaster", re.IGNORECASE | re.ASCII)

# --- RFC 1870 section 4 ---
#
#   size-value     = 1*20DIGIT
SIZE_VALUE = re.compile("[0-9]{1,20}")

# --- RFC 3030 section 2 ---
#
#   bdat-cmd       = "BDAT" SP chunk-size [ SP end-marker ] CR LF
#   chunk-size     = 1*DIGIT
#   end-marker     = "LAST"
BDAT = re.compile("([0-9]{1,20})( LAST)?", re.IGNORECASE | re.ASCII)

# --- RFC 4954 section 4; RFC 4422 section 3.1 ---
#
#   auth-command     = "AUTH" SP sasl-mech [SP initial-response] *(CRLF [base64]) [CRLF cancel-response] CRLF
#   sasl-mech        = 1*20mech-char           ; upper case, digits, hyphen, underscore
#   initial-response = base64 / "="
AUTH = re.compile("([A-Z0-9_-]{1,20})(?: +([A-Z0-9+/=]+))?", re.IGNORECASE | re.ASCII)

# --- RFC 3461 section 4 ---
#
#   xtext            = *( xchar / hexchar )
#   xchar            = any ASCII CHAR between "!" (33) and "~" (126) inclusive, except for "+" and "="
#   hexchar          = ASCII "+" immediately followed by two upper case hexadecimal digits
XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
HEXCHAR = re.compile(r"\+([0-9A-F]{2})")

#   orcpt-parameter  = "ORCPT=" original-recipient-address
#   original-recipient-address = addr-type ";" xtext
ADDRESS_TYPE = re.compile("[A-Za-z0-9-]{1,64}")

# --- RFC 6533 section 3 ---
#
#   utf-8-addr-xtext   = 1*( QCHAR / EmbeddedUnicodeChar )
#   utf-8-addr-unitext = 1*( QUCHAR / EmbeddedUnicodeChar )
#   QUCHAR             = QCHAR / UTF8-non-ascii
#   QCHAR              = %x21-2a / %x2c-3c / %x3e-5b / %x5d-7e       ; no "+", "=" or "\"
#   EmbeddedUnicodeChar = "\x{" HEXPOINT "}"
UTF8_ADDRESS = re.compile("(?:[!-*,-<>-\\[\\]-~\u0080-\U0010ffff]|\\\\x\\{[0-9A-F]{2,6}\\})+")
EMBEDDED_CHARACTER = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
