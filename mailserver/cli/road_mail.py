"""A message that came some time ago, as its road and its text have it: for those who replay it."""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.assembly.rehearsal import PostedMail
from mailserver.cli.kept_text import KeptTexts
from mailserver.dns.recorded import RecordedResolver, key_of
from mailserver.mail.address import Address, AddressError
from mailserver.mail.dns_records import Answer, LookupFailed
from mailserver.observe.roads import DnsOfThen, Step

__all__ = ["AnswersOfThen", "mail_of_road", "service_of"]

SLACK_SECONDS = 1.0  # steps are written down in the order in which they come


class AnswersOfThen:
    """Answers as the DNS did when a message came.  `has_missed` says that somebody asked for what was not written down."""

    def __init__(self, dns: DnsOfThen) -> None:
        self._dns = dns
        self._moment = 0.0
        self.has_missed = False

    def at(self, id: str, steps: Sequence[Step]) -> None:
        """From now on as when this message came."""
        came = [one.time for one in steps if one.id == id and one.step in ("accepted", "refused")]
        self._moment = min(came, default=0.0) + SLACK_SECONDS
        self.has_missed = False

    async def query(self, name: str, record_type: str) -> Answer:
        """The answer of then."""
        found = self._dns.answer(key_of(name), record_type, self._moment)
        if found is None:
            self.has_missed = True
            raise LookupFailed(f"{name}: what the DNS had said of {record_type} was not written down")
        return await RecordedResolver([found]).query(name, record_type)


def service_of(steps: Sequence[Step]) -> str:
    """Where its connection came in."""
    return next((str(one.fields.get("service")) for one in steps if one.step == "connected"), "mx")


def mail_of_road(id: str, steps: Sequence[Step], texts: KeptTexts) -> PostedMail | None:
    """The message with its envelope and peer.  None where it was not taken, its text is not there any more, or its addresses are
    redacted."""
    accepted = next((one.fields for one in steps if one.step == "accepted" and one.id == id), None)
    text = None if accepted is None else texts.text(id)
    if accepted is None or text is None:
        return None
    login = next((str(one.fields.get("account", "")) for one in steps if one.step == "login"), "")
    tls = any(one.step == "encrypted" for one in steps)
    try:
        sender = Address.parse(str(accepted["sender"]), utf8=True) if accepted.get("sender") else None
        recipients = tuple([Address.parse(str(one), utf8=True) for one in accepted.get("recipients", ())])
    except AddressError:
        return None
    if not recipients:
        return None
    peer, hello = str(accepted.get("peer", "")), str(accepted.get("hello", ""))
    return PostedMail(text, sender, recipients, peer, hello, service_of(steps), login, tls)
