"""What the replies of large operators mean, and what can be done: a pure table.

Operators say the same things in words of their own, with codes that no RFC knows.  `meaning_of` reads a reply, as its text, and
finds its entry; a reply that no entry knows has no meaning here, and nothing is made up.  What an entry says comes from what the
operators publish for senders.  The first entry that fits is taken, so the special ones stand before the general ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["ReplyMeaning", "meaning_of"]

CHARACTERS_READ = 1500


@dataclass(frozen=True, slots=True)
class ReplyMeaning:
    """`key` names it; `operator` says it, "" for many; `means` and `do` are sentences for a postmaster.

    With `is_ours` the cause is with this server or with a domain that sends over it, so postmaster is told.
    """

    key: str
    operator: str
    means: str
    do: str
    is_ours: bool = True
    pattern: re.Pattern[str] = field(default=re.compile("$^"), repr=False, compare=False)


def _entry(key: str, operator: str, pattern: str, means: str, do: str, *, is_ours: bool = True) -> ReplyMeaning:
    return ReplyMeaning(key, operator, means, do, is_ours, re.compile(pattern, re.IGNORECASE | re.DOTALL))


AUTHENTICATE = (
    "The SPF record of the domain in MAIL FROM has to name our addresses, or its DKIM key has to be published (`mailserver dkim "
    "dns`), and one of the two has to be of the very domain in From."
)
SLOWER = "Mail goes there more slowly by itself (`mailserver queue destinations`). "
LOOK_FOR_SPAM = (
    "Look for an account that sends what it should not (`mailserver explain --sender`, the log), for forwards of spam, and for "
    "lists without a way to leave them."
)
TABLE = (
    # --- Gmail ---
    _entry(
        "google.rate", "Gmail", r"\b[45]\.7\.28\b.*(unusual rate|rate limited|gmail|gsmtp)|UnsolicitedRateLimitError",
        "Gmail gets more unsolicited mail from our address, our network or this domain than it takes, and slows it down.",
        SLOWER + LOOK_FOR_SPAM,
    ),
    _entry(
        "google.dmarc", "Gmail", r"\b[45]\.7\.26\b.*DMARC policy",
        "The domain in From wants mail refused that fails DMARC, and this mail did: it may be forged, or a forward.",
        AUTHENTICATE,
    ),
    _entry(
        "google.unauthenticated", "Gmail",
        r"\b[45]\.7\.26\b.*(unauthenticated|authenticat|SPF)",
        "Neither SPF nor DKIM has passed for this mail, and Gmail takes none without.",
        AUTHENTICATE,
    ),
    _entry(
        "google.spf", "Gmail", r"\b[45]\.7\.27\b.*(SPF|gsmtp)",
        "Gmail counts the domain among the senders of much mail, of whom it wants SPF to pass, and it did not.",
        "The SPF record of the domain in MAIL FROM has to name our addresses.",
    ),
    _entry(
        "google.dkim", "Gmail", r"\b[45]\.7\.30\b.*(DKIM|gsmtp)",
        "Gmail counts the domain among the senders of much mail, of whom it wants DKIM to pass, and it did not.",
        "`mailserver dkim list` shows whether we sign for it, `mailserver dkim dns` which record has to be published.",
    ),
    _entry(
        "google.alignment", "Gmail", r"\b[45]\.7\.32\b.*(align|From|gsmtp)",
        "SPF or DKIM passes, but for another domain than the one in From.",
        "Sign with a key of the domain in From, or use it in MAIL FROM.",
    ),
    _entry(
        "google.no-dmarc", "Gmail", r"\b[45]\.7\.(31|40)\b.*(DMARC|gsmtp)",
        "Gmail counts the domain among the senders of much mail, of whom it wants a DMARC record, and finds none.",
        "Publish one; p=none is enough.",
    ),
    _entry(
        "google.ptr", "Gmail", r"\b[45]\.7\.(25|23)\b.*(PTR|reverse|gsmtp)",
        "The address that we send from has no PTR record, or its name does not lead back to it.",
        "Whoever lends us the address sets its PTR record to our hostname, and the hostname's A or AAAA record is that address. "
        "Until then `[relay] ip` or `prefer` can choose the other family.",
    ),
    _entry(
        "google.tls", "Gmail", r"\b[45]\.7\.29\b.*(TLS|gsmtp)",
        "Gmail wants this mail encrypted, and it came in the clear.",
        "`[relay] tls` must not be \"none\".",
    ),
    _entry(
        "google.reputation", "Gmail", r"\b[45]\.7\.[01]\b.*(low reputation of|likely (unsolicited|suspicious))",
        "Gmail takes this mail for spam, because of what has come from our address or from this domain.",
        LOOK_FOR_SPAM + " Google's Postmaster Tools show the reputation of a domain.",
    ),
    _entry(
        "google.user-rate", "Gmail", r"\b4\.2\.1\b.*user you are trying to contact is receiving mail",
        "This one user gets more mail from everybody than Gmail delivers at a time.",
        "Nothing: it is tried again.", is_ours=False,
    ),
    _entry(
        "google.domain-policy", "Gmail", r"- gcdp\b",
        "An administrator of the recipient's domain has made a rule that refuses this mail.",
        "Ask the recipient, by another way, to have it changed.", is_ours=False,
    ),
    _entry(
        "google.full", "Gmail", r"\b[45]\.2\.2\b.*(inbox is out of storage|over quota).*gsmtp",
        "The recipient's mailbox is full.",
        "Nothing here: the recipient has to make room.", is_ours=False,
    ),
    # --- Microsoft: Outlook.com and Microsoft 365 ---
    _entry(
        "microsoft.requirements", "Microsoft", r"\b5\.7\.515\b",
        "Outlook.com counts the domain in From among the senders of much mail, of whom it wants SPF, DKIM and DMARC all to pass.",
        "Publish SPF, DKIM and DMARC (p=none is enough). " + AUTHENTICATE,
    ),
    _entry(
        "microsoft.dmarc", "Microsoft", r"\b5\.7\.509\b",
        "The domain in From wants mail refused that fails DMARC, and this mail did: it may be forged, or a forward.",
        AUTHENTICATE,
    ),
    _entry(
        "microsoft.blocked", "Microsoft", r"on our block ?list|\((S3140|S3150|S8001|OU-00[12]|SC-00[1-4])\)|\b(SC|OU)-00[0-9]\b",
        "Outlook.com has our address, or the network around it, on its list of those who may not send.",
        LOOK_FOR_SPAM + " Then ask for the address's removal with the form of its support for senders; SNDS shows what it holds "
        "against an address.",
    ),
    _entry(
        "microsoft.banned", "Microsoft", r"\b5\.7\.(60[6-9]|6[1-4][0-9])\b.*(banned|blocked)|Access denied, banned sending IP",
        "Microsoft 365 has our address on its list of those who may not send.",
        LOOK_FOR_SPAM + " Then take the address off the list at https://sender.office.com.",
    ),
    _entry(
        "microsoft.spamhaus", "Microsoft", r"\b5\.7\.1\b.*blocked using Spamhaus|blocked using .{0,40}(S3140|Spamhaus).*outlook",
        "Our address is on a list of Spamhaus.",
        "https://check.spamhaus.org says on which and why. " + LOOK_FOR_SPAM,
    ),
    _entry(
        "microsoft.ip-rate", "Microsoft", r"\b4\.7\.(650|651|652)\b|temporarily rate limited due to IP reputation",
        "Outlook.com slows mail from our address down, because it knows it little or knows no good of it.",
        SLOWER + LOOK_FOR_SPAM + " An address that is new gains its reputation slowly.",
    ),
    _entry(
        "microsoft.busy", "Microsoft", r"\b4\.7\.500\b",
        "Microsoft 365 holds mail from our address back, mostly because much more comes than it is used to.",
        SLOWER + "It goes away by itself; where it does not, look at what is sent.",
    ),
    _entry(
        "microsoft.new-tenant", "Microsoft", r"\b5\.7\.708\b",
        "Microsoft 365 takes no mail from this address: it belongs to it, and is used by tenants without a reputation.",
        "Send over another smarthost, or ask Microsoft's support.",
    ),
    _entry(
        "microsoft.tenant-limit", "Microsoft", r"\b5\.7\.705\b|tenant has exceeded threshold",
        "The tenant of Microsoft 365 that we send over has sent too much, or spam.",
        LOOK_FOR_SPAM + " Then Microsoft's support lifts the block.",
    ),
    _entry(
        "microsoft.no-recipient", "Microsoft", r"\b5\.4\.1\b.*(Recipient address rejected: Access denied|AS\(201806281\))",
        "The recipient's domain knows no such address.",
        "Correct the address.", is_ours=False,
    ),
    _entry(
        "microsoft.restricted", "Microsoft", r"\b5\.7\.(133|134|12|124|135|136)\b.*(RESOLVER|not authenticated|not accept)",
        "The recipient takes mail from certain senders alone, often from inside its organization.",
        "Ask the recipient, by another way, to allow it.", is_ours=False,
    ),
    _entry(
        "microsoft.recipient-rate", "Microsoft", r"\b4\.3\.2\b.*STOREDRV|recipient thread limit exceeded",
        "This one mailbox gets more mail at a time than it takes.",
        "Nothing: it is tried again.", is_ours=False,
    ),
    # --- Yahoo, AOL ---
    _entry(
        "yahoo.greylist", "Yahoo", r"\[GL01\]",
        "Yahoo does not know our address yet, and wants the mail again later.",
        "Nothing: it is tried again.", is_ours=False,
    ),
    _entry(
        "yahoo.deferred", "Yahoo", r"\[TSS0[0-9]\]|\[TS0[1245]\]|\b4\.16\.5[0-9]",
        "Yahoo gets more mail from our address than it is used to, or its users have called some of it spam.",
        SLOWER + LOOK_FOR_SPAM + " Yahoo asks for four hours before the next attempt.",
    ),
    _entry(
        "yahoo.refused", "Yahoo", r"\[TSS(09|1[0-9])\]",
        "Yahoo takes no mail from our address.",
        LOOK_FOR_SPAM + " Then ask Yahoo's support for senders to look at the address.",
    ),
    _entry(
        "yahoo.deferred-for-long", "Yahoo", r"\[TS03\]|permanently deferred",
        "Yahoo takes no mail from our address any more, though it calls that temporary: too much of it was called spam.",
        LOOK_FOR_SPAM + " Then ask Yahoo's support for senders to look at the address.",
    ),
    _entry(
        "yahoo.authentication", "Yahoo", r"\b5\.7\.9\b.*not accepted for policy reasons",
        "SPF, DKIM or DMARC did not pass for the domain in From, and its policy or Yahoo's wants them to.",
        AUTHENTICATE,
    ),
    _entry(
        "yahoo.listed", "Yahoo", r"\[BL2[0-9]\]",
        "Our address is on a list that Yahoo uses, mostly one of Spamhaus.",
        "https://check.spamhaus.org says on which and why. " + LOOK_FOR_SPAM,
    ),
    # --- Apple ---
    _entry(
        "apple.policy", "Apple", r"\[(CS|HM|HME|HVU)[0-9]{0,2}\].*local policy|\[(CS0[0-9]|HM0[0-9])\]",
        "Apple's filter takes this mail for spam, by its content, its links or what has come from our address before.",
        "See whether other mail to Apple arrives. " + LOOK_FOR_SPAM + " Apple's postmaster looks at it with log lines of several "
        "refusals: icloudadmin@apple.com.",
    ),
    _entry(
        "apple.rate", "Apple", r"deferred due to excessive volume",
        "Apple gets more mail for this address, or from ours, than it takes at a time.",
        SLOWER + "Nothing else has to be done.",
    ),
    _entry(
        "apple.dmarc", "Apple", r"\b5\.7\.1\b.*rejected due to .{1,255} DMARC policy",
        "The domain in From wants mail refused that fails DMARC, and this mail did: it may be forged, or a forward.",
        AUTHENTICATE,
    ),
    # --- others ---
    _entry(
        "aup", "Comcast, Charter, AT&T", r"\bAUP#|\bAUP_#|\[AUP#",
        "Our address has no PTR record, is on a list, or has sent what the operator's rules forbid; the number after AUP# says "
        "which.",
        "The operator's postmaster page explains the number. See first that our address has a PTR record that leads back to it. "
        + LOOK_FOR_SPAM,
    ),
    _entry(
        "spamhaus", "", r"\b5\.7\.1\b.*\bspamhaus\b|zen\.spamhaus\.org|\bspamhaus\.org/(query|sbl|pbl)",
        "Our address, or a domain in the mail, is on a list of Spamhaus that the host uses.",
        "https://check.spamhaus.org says on which and why. " + LOOK_FOR_SPAM,
    ),
)  # fmt: skip


def meaning_of(reply: str) -> ReplyMeaning | None:
    """What the reply (its codes and its words, on one line) means; None where the table does not know it."""
    words = reply[:CHARACTERS_READ]
    if words[:1] not in ("4", "5"):
        return None
    return next((one for one in TABLE if one.pattern.search(words)), None)
