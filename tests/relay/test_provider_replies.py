"""What replies of large operators mean: their own words, and words that nobody knows."""

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.reply_remarks import remarks_on
from mailserver.mail.reply import Reply
from mailserver.relay.heard_meanings import HeardMeanings
from mailserver.relay.provider_replies import TABLE, meaning_of
from tests.relay.network import Peer, RelayCase

SAID = (
    ("google.rate", "421 4.7.28 [192.0.2.1] Our system has detected an unusual rate of unsolicited mail originating from your IP address."),
    ("google.rate", "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail. To protect our users, your mail has been rate limited. - gsmtp"),
    ("google.dmarc", "550 5.7.26 Unauthenticated email from example.org is not accepted due to domain's DMARC policy. - gsmtp"),
    ("google.unauthenticated", "550 5.7.26 This mail has been blocked because the sender is unauthenticated. Gmail requires all senders to"),
    ("google.unauthenticated", "550 5.7.26 This message does not have authentication information or fails to pass authentication checks"),
    ("google.spf", "421 4.7.27 Your email has been rate limited because SPF authentication didn't pass for this message. - gsmtp"),
    ("google.dkim", "550 5.7.30 Your email has been blocked because DKIM authentication didn't pass. - gsmtp"),
    ("google.alignment", "421 4.7.32 Your email has been rate limited because the From: header isn't aligned with SPF or DKIM. - gsmtp"),
    ("google.no-dmarc", "550 5.7.40 Your email has been blocked because the sending domain doesn't have a DMARC record. - gsmtp"),
    ("google.ptr", "550 5.7.25 [192.0.2.1] The IP address sending this message does not have a PTR record setup. - gsmtp"),
    ("google.reputation", "550 5.7.1 Our system has detected that this message is likely suspicious due to the very low reputation of the domain"),
    ("google.reputation", "550 5.7.1 Our system has detected that this message is likely unsolicited mail. - gsmtp"),
    ("google.user-rate", "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages"),
    ("google.domain-policy", "550 5.7.1 This message violates example.com email policy. - gcdp x1si1 - gsmtp"),
    ("google.full", "452 4.2.2 The recipient's inbox is out of storage space. x1si1 - gsmtp"),
    ("microsoft.requirements", "550 5.7.515 Access denied, sending domain EXAMPLE.ORG does not meet the required authentication level."),
    ("microsoft.dmarc", "550 5.7.509 Access denied, sending domain example.org does not pass DMARC verification and has a DMARC policy of reject."),
    ("microsoft.blocked", "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. part of their network is on our block list (S3150)."),
    ("microsoft.blocked", "550 SC-001 (BAY004-MC4F49) Unfortunately, messages from 192.0.2.1 weren't sent."),
    ("microsoft.banned", "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this list please visit"),
    ("microsoft.ip-rate", "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775)"),
    ("microsoft.busy", "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (AS77713)"),
    ("microsoft.new-tenant", "550 5.7.708 Service unavailable. Access denied, traffic not accepted from this IP."),
    ("microsoft.tenant-limit", "550 5.7.705 Access denied, tenant has exceeded threshold"),
    ("microsoft.no-recipient", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)"),
    ("microsoft.recipient-rate", "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded"),
    ("yahoo.deferred", "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1"),
    ("yahoo.deferred-for-long", "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred; Retrying will NOT succeed."),
    ("yahoo.greylist", "451 4.7.1 [GL01] Message from (192.0.2.1) temporarily deferred - 4.16.50."),
    ("yahoo.authentication", "554 5.7.9 Message not accepted for policy reasons."),
    ("yahoo.listed", "553 5.7.1 [BL21] Connections will not be accepted from 192.0.2.1, because the ip is in Spamhaus's list"),
    ("yahoo.refused", "553 5.7.2 [TSS11] All messages from 192.0.2.1 will be permanently deferred"),
    ("apple.policy", "554 5.7.1 [HM08] Message rejected due to local policy. Please visit https://support.apple.com/en-us/HT204137"),
    ("apple.policy", "550 5.7.1 [CS01] Message rejected due to local policy."),
    ("apple.rate", "421 4.7.1 Messages to alice@icloud.example deferred due to excessive volume. Try again later"),
    ("apple.dmarc", "550 5.7.1 Your message was rejected due to example.org's DMARC policy."),
    ("aup", "550 5.7.1 [192.0.2.1] AUP#1260: connection refused"),
    ("spamhaus", "550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using zen.spamhaus.org"),
)
UNKNOWN = (
    "",
    "250 2.0.0 Ok 4.7.28 unusual rate",
    "550 5.1.1 No such user",
    "450 4.7.1 Greylisted, come again in 300 seconds",
    "550 5.7.1 Relaying denied",
    "550 5.7.26 no",
    "421 4.3.2 Shutting down",
    "451 4.4.1 No connection: Connection was refused by other side: 111: Connection refused",
)


class Meanings(SynchronousTestCase):
    def test_what_operators_say_is_understood(self):
        for key, words in SAID:
            found = meaning_of(words)
            self.assertEqual(None if found is None else found.key, key, words)

    def test_each_entry_is_met_by_words_that_were_said_and_has_a_name_of_its_own(self):
        keys = [one.key for one in TABLE]
        self.assertEqual(len(set(keys)), len(keys))
        seldom = {"google.tls", "microsoft.spamhaus", "microsoft.restricted"}
        self.assertEqual(set(keys) - {key for key, _ in SAID}, seldom)
        for one in TABLE:
            self.assertTrue(one.means.endswith(".") and one.do.endswith("."), one.key)

    def test_of_what_nobody_knows_nothing_is_made_up(self):
        for words in UNKNOWN:
            self.assertIsNone(meaning_of(words), words)
            self.assertEqual(remarks_on(words), [])

    def test_the_remarks_are_our_own_words_whatever_the_peer_has_said(self):
        evil = "550 5.7.515 \x1b[31m Access denied\r\nfake"
        for line in remarks_on(evil):
            self.assertTrue(line.isprintable())
            self.assertNotIn("fake", line)

    def test_a_long_reply_takes_no_time(self):
        meaning_of("550 5.7.26 " + "a " * 100_000)
        meaning_of("550 " + "5.7.1 rejected due to " * 10_000)


class Heard(RelayCase):
    def test_the_relay_remembers_each_meaning_once_until_somebody_looks(self):
        self.peers(Peer({"MAIL": "550 5.7.515 Access denied, sending domain X does not meet the required authentication level"}))
        for _ in range(3):
            self.deliver()
        (heard,) = self.connections.meanings.taken()
        self.assertEqual((heard.meaning.key, heard.host, heard.count), ("microsoft.requirements", "a.example", 3))
        self.assertEqual(self.connections.meanings.taken(), ())

    def test_a_greeting_counts_and_what_is_nobodys_fault_here_does_not(self):
        heard = HeardMeanings()
        heard.add(Reply.heard(452, "4.2.2", ("The recipient's inbox is out of storage space - gsmtp",)), "mx.example")
        self.assertEqual(heard.taken(), ())
        self.peers(Peer({"greeting": "554 5.7.1 [HM08] Message rejected due to local policy"}))
        self.deliver()
        self.assertEqual([one.meaning.key for one in self.connections.meanings.taken()], ["apple.policy"])
