"""Names that are never asked about elsewhere (RFC 6761 section 6): localhost, .invalid, .test."""

from __future__ import annotations

from mailserver.mail.dns_records import Answer

__all__ = ["answer_here", "stays_on_this_host"]

NOT_THERE = Answer((), name_exists=False)
LOOPBACK = {"A": Answer(("127.0.0.1",)), "AAAA": Answer(("::1",))}
NO_SUCH_TYPE = Answer(())


def answer_here(name: str, record_type: str) -> Answer | None:
    """The answer for a special name, given without asking; None for all other names.

    `name` is in lower case, without a final dot.
    """
    top = name[name.rfind(".") + 1 :]
    if top == "localhost":  # section 6.3: the loopback addresses, and nothing else
        return LOOPBACK.get(record_type, NO_SUCH_TYPE)
    if top == "invalid":  # section 6.4
        return NOT_THERE
    return None


def stays_on_this_host(name: str) -> bool:
    """Whether only a name server on this host may be asked.  Somebody may have set it up for tests (RFC 6761 section 6.2)."""
    return name.endswith(".test") or name == "test"
