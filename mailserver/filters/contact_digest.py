"""The message that tells a user who waits for his decision, with a one-time reply address for each.  Pure.

What strangers have written (names, subjects) stands in it on lines of its own, without control characters, and cut.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mailserver.filters.contact_decisions import HeldMail
from mailserver.filters.contact_tokens import reply_address

__all__ = ["SENDERS_MOST", "WaitingSender", "digest_message", "waiting_senders"]

SENDERS_MOST = 40  # in one digest
LINE_CHARACTERS = 120
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
EVIDENCE = {
    "pass": "It is shown that this is from {domain}.",
    "fail": "BEWARE: {domain} says that this is not from there.",
    "none": "Nothing shows whether this is from {domain}.",
}


@dataclass(frozen=True, slots=True)
class WaitingSender:
    """The mail of one sender that is held: how many messages, the newest of them, the worst that is known of where it is from."""

    sender: str
    count: int
    newest: HeldMail
    evidence: str

    @property
    def address(self) -> str:
        """Without its kind."""
        return self.sender.partition(":")[2]

    @property
    def domain(self) -> str:
        """The sender's."""
        return self.sender.rpartition("@")[2]


def waiting_senders(held: Sequence[HeldMail]) -> list[WaitingSender]:
    """By sender, those first whose newest message is the newest."""
    by_sender: dict[str, list[HeldMail]] = {}
    for one in held:
        by_sender.setdefault(one.sender, []).append(one)
    worst = ("fail", "none", "pass").index
    found = []
    for sender, mail in by_sender.items():
        newest = sorted(mail, key=lambda one: one.since)[-1]
        found.append(WaitingSender(sender, len(mail), newest, min([one.evidence for one in mail], key=worst)))
    return sorted(found, key=lambda one: -one.newest.since)


def digest_message(
    user: str, waiting: Sequence[WaitingSender], secrets: Mapping[str, str], *, hostname: str, junk_seconds: float
) -> bytes:
    """The message.  `secrets` has one for each sender; those without one are only counted."""
    domain, shown = user.rpartition("@")[2], [one for one in waiting if one.sender in secrets]
    count = sum([one.count for one in waiting])
    words = "message waits" if count == 1 else "messages wait"
    text = [
        f"{count} {words} for your decision: you have never written to {'its sender' if count == 1 else 'those who send them'}.",
        "To decide, send a message to one of the addresses below, from your own address; its text does not matter.",
        "Of those for one sender the first that you use decides; later ones do nothing.",
        f"What nobody decides about goes to your Junk folder after {_days(junk_seconds)}.",
    ]
    for one in shown:
        text += ["", "-" * 60, "", *_about(one, secrets[one.sender], domain)]
    if len(shown) < len(waiting):
        text += ["", "-" * 60, "", f"There are {len(waiting) - len(shown)} more senders, of whom you will be told."]
    header = (
        f'From: "Mail server" <MAILER-DAEMON@{hostname}>',
        *((f"To: <{user}>",) if user.isascii() else ()),
        f"Subject: {count} {words} for your decision",
        "Auto-Submitted: auto-generated",  # RFC 3834 section 5
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
    )
    return "".join([f"{line}\r\n" for line in (*header, "", *text)]).encode("utf-8", "replace")


def _about(one: WaitingSender, secret: str, domain: str) -> list[str]:
    newest = one.newest
    lines = [_line(one.address)]
    if newest.author:
        lines.append(f"  writes as: {_line(newest.author)}")
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(newest.since))
    count = "1 message" if one.count == 1 else f"{one.count} messages, the last one"
    lines.append(f"  {count} at {at}: {_line(newest.subject) or '(no subject)'}")
    lines += ["  " + EVIDENCE.get(one.evidence, EVIDENCE["none"]).format(domain=_line(one.domain)), ""]
    choices = [("accept, now and always", "a"), ("accept, this time", "o")]
    if one.evidence == "pass":
        choices.append((f"accept all of {_line(one.domain)}", "d"))
    choices += [("refuse, now and always", "r"), ("refuse, this time", "n")]
    return lines + [f"  {words}:\r\n    <mailto:{reply_address(secret, letter, domain)}>" for words, letter in choices]


def _line(text: str) -> str:
    """Text of others: one line of it, in which mail programs find no link."""
    cleaned = UNFIT.sub("?", text).replace("://", ": //")
    return cleaned if len(cleaned) <= LINE_CHARACTERS else cleaned[:LINE_CHARACTERS] + "..."


def _days(seconds: float) -> str:
    hours = round(seconds / 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{max(hours, 1)} hours"
