"""What is said below a reply of a large operator: what it means, and what can be done (`mailserver.relay.provider_replies`)."""

from __future__ import annotations

__all__ = ["remarks_on", "reply_meaning"]


def remarks_on(reply: str) -> list[str]:
    """Two lines of our own words, none where nobody knows what the reply means."""
    found = reply_meaning(reply)
    return [f"means: {found['means']}", f"do: {found['do']}"] if found else []


def reply_meaning(reply: str) -> dict[str, str]:
    """For programs: `key`, `means` and `do`; empty where nobody knows."""
    from mailserver.relay.provider_replies import (
        meaning_of,  # most roads have no such reply, and the table takes its time
    )

    found = meaning_of(reply) if reply[:1] in ("4", "5") else None
    return {} if found is None else {"key": found.key, "means": found.means, "do": found.do}
