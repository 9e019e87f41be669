"""Which 4yz replies say "slower", and of what: a pure table.

A reply that is about one recipient, one mailbox or one message (greylisting, a full mailbox, a recipient who gets too much from
everybody) says nothing of our pace, whatever words it has.
"""

from __future__ import annotations

import enum
import re

from mailserver.mail.reply import Reply

__all__ = ["SlowDown", "slow_down"]

WORDS_READ = 1000  # characters


class SlowDown(enum.Enum):
    """Of what there is too much."""

    MESSAGES = "messages"
    CONNECTIONS = "connections"


# About somebody else than us, or about this message alone.
OF_OTHERS = re.compile(
    r"gr[ea]ylist|mailbox[^.]{0,40}(full|quota)|over ?quota|quota exceeded|user[^.]{0,60}receiving mail"
    r"|recipient[^.]{0,60}receiving|recipient thread limit|too many recipients|too many hops|message (size|too)"
    r"|insufficient (system )?(storage|disk)",
    re.IGNORECASE,
)
OF_CONNECTIONS = re.compile(
    r"(too many|maximum (number of )?|number of|excessive|limit[^.]{0,20}) ?(concurrent |simultaneous |parallel |open |smtp )*"
    r"(connections?|sessions)|concurrent (smtp )?connections?|connections? limit|concurrency limit",
    re.IGNORECASE,
)
OF_MESSAGES = re.compile(
    r"rate[- ]?limit|unusual rate|(sending|message|mail|connection|delivery) rate|rate (is )?(too|exceed)"
    r"|exceed[^.]{0,40}\brate\b|throttl|too (many|much) (messages|mails?|e-?mails?|requests|transactions|deliveries)|too fast"
    r"|slow(ing)? down|(excessive|unexpected|high) (volume|rate)|\[tss?[0-9]{2}\]|resources restricted|user complaints"
    r"|(messages?|mails?|e-?mails?) (per|in (the|this|an?|one)) (second|minute|hour|day)"
    r"|(hourly|daily) (message |mail )?(limit|quota)",
    re.IGNORECASE,
)
# Enhanced status codes with which operators say it, whatever the words.
CODES = frozenset({"4.7.28", "4.7.500", "4.7.650", "4.7.651", "4.7.652", "4.16.55"})


def slow_down(reply: Reply) -> SlowDown | None:
    """What the peer wants less of; None where the reply is about something else.  A 5yz reply is an answer, and no pace helps."""
    if not reply.is_transient:
        return None
    words = " ".join(reply.lines)[:WORDS_READ]
    if reply.enhanced in CODES:
        return SlowDown.CONNECTIONS if OF_CONNECTIONS.search(words) else SlowDown.MESSAGES
    if OF_OTHERS.search(words):
        return None
    if OF_CONNECTIONS.search(words):
        return SlowDown.CONNECTIONS
    return SlowDown.MESSAGES if OF_MESSAGES.search(words) else None
