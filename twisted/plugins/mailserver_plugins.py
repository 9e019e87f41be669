"""The `twistd mailserver` command and the components that come with the server."""

from twisted.application.service import ServiceMaker

from mailserver.interfaces import (
    IAttemptFilter,
    IBatchDelivery,
    IConcurrentDelivery,
    IContentFilter,
    IDirectory,
    IModifier,
    IObserver,
    IPeerEnd,
    IPeerFilter,
    IRecipientContentFilter,
    IRecipientFilter,
    IScorer,
    ISenderFilter,
    ISigner,
    ITransactionEnd,
)
from mailserver.plugins.catalogue import Shipped

mailserver = ServiceMaker(
    "mailserver", "mailserver.service", "A mail server: SMTP and LMTP into Maildirs.", "mailserver"
)

file = Shipped(
    name="file",
    summary="Accounts in a TOML file that `mailserver user` writes.",
    provides=(IDirectory,),
    target="mailserver.accounts.file:FileDirectoryFactory",
)

system = Shipped(
    name="system",
    summary="The users of this host.",
    provides=(IDirectory,),
    target="mailserver.accounts.system:SystemDirectoryFactory",
)

sql = Shipped(
    name="sql",
    summary="Accounts in an SQLite file or in PostgreSQL.",
    provides=(IDirectory,),
    target="mailserver.accounts.sql:SqlDirectoryFactory",
)

ldap = Shipped(
    name="ldap",
    summary="Accounts in an LDAP directory.",
    provides=(IDirectory,),
    target="mailserver.accounts.ldap:LdapDirectoryFactory",
)

maildir = Shipped(
    name="maildir",
    summary="Mail into Maildirs, for users of the mail server or, with {home}, of the host.",
    provides=(IBatchDelivery,),
    target="mailserver.delivery.maildir:MaildirFactory",
)

lmtp = Shipped(
    name="lmtp",
    summary="Hands mail to a mail store, such as Dovecot's, by LMTP.",
    provides=(IConcurrentDelivery,),
    target="mailserver.relay.lmtp:LMTPFactory",
)

pipe = Shipped(
    name="pipe",
    summary="Gives each message to a command, run as a given user.",
    provides=(IConcurrentDelivery,),
    target="mailserver.delivery.pipe:PipeFactory",
)

discard = Shipped(
    name="discard",
    summary="Throws every message away.",
    provides=(IBatchDelivery,),
    target="mailserver.delivery.discard:DiscardFactory",
)

capture = Shipped(
    name="capture",
    summary="Keeps mail for other hosts in one Maildir and sends nothing.",
    provides=(IBatchDelivery,),
    target="mailserver.delivery.capture:CaptureFactory",
)

mx = Shipped(
    name="mx",
    summary="Sends mail for other domains to their mail exchangers.",
    provides=(IConcurrentDelivery,),
    target="mailserver.relay.components:MXFactory",
)

smarthost = Shipped(
    name="smarthost",
    summary="Sends mail for other domains to one host, which takes it further.",
    provides=(IConcurrentDelivery,),
    target="mailserver.relay.components:SmarthostFactory",
)

null_mx = Shipped(
    name="null_mx",
    summary="Refuses senders whose domain takes no mail itself (null MX, RFC 7505).",
    provides=(ISenderFilter,),
    target="mailserver.filters.null_mx:factory",
)

list_unsubscribe = Shipped(
    name="list_unsubscribe",
    summary="Tells mail of users to many that cannot be unsubscribed with one click (RFC 8058).",
    provides=(IContentFilter,),
    target="mailserver.filters.list_unsubscribe:factory",
)

policy_delegation = Shipped(
    name="policy_delegation",
    summary="Asks a policy service that speaks Postfix's policy delegation.",
    provides=(IRecipientFilter, IContentFilter, IModifier),
    target="mailserver.filters.policy_delegation:factory",
)

scores = Shipped(
    name="scores",
    summary="Adds up the scores of what the other filters have found: a tag, Junk, held, later or no, by thresholds.",
    provides=(IScorer,),
    target="mailserver.filters.scores:factory",
)

rspamd = Shipped(
    name="rspamd",
    summary="Has messages judged by rspamd.",
    provides=(IContentFilter, IModifier),
    target="mailserver.filters.rspamd:factory",
)

spamassassin = Shipped(
    name="spamassassin",
    summary="Has messages judged by SpamAssassin's spamd.",
    provides=(IContentFilter,),
    target="mailserver.filters.spamassassin:factory",
)

clamav = Shipped(
    name="clamav",
    summary="Has messages scanned for viruses by ClamAV's clamd.",
    provides=(IContentFilter,),
    target="mailserver.filters.clamav:factory",
)

milter = Shipped(
    name="milter",
    summary="Asks a milter: OpenDKIM, OpenDMARC, rspamd's proxy and every other.",
    provides=(IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter, IModifier, ITransactionEnd, IPeerEnd),
    target="mailserver.filters.milter:factory",
)

denylist = Shipped(
    name="denylist",
    summary="Refuses or defers peers by network or HELO name, and senders by address or domain.",
    provides=(IPeerFilter, ISenderFilter),
    target="mailserver.filters.denylist:factory",
)

aiosmtpd = Shipped(
    name="aiosmtpd",
    summary="Asks a handler that was written for aiosmtpd (needs twistd --reactor=asyncio).",
    provides=(IPeerFilter, ISenderFilter, IRecipientFilter, IContentFilter),
    target="mailserver.filters.aiosmtpd_handler:factory",
)

dkim = Shipped(
    name="dkim",
    summary="Verifies DKIM signatures and notes what came of each (RFC 6376).",
    provides=(IContentFilter,),
    target="mailserver.filters.dkim:DKIMFactory",
)

dkim_signing = Shipped(
    name="dkim_signing",
    summary="Signs what users, local programs and the server itself send, and what aliases send on (DKIM, RFC 6376).",
    provides=(ISigner,),
    target="mailserver.filters.dkim_signing:DKIMSigningFactory",
)

spf = Shipped(
    name="spf",
    summary="Asks whether the peer may send for the sender's domain, and notes the answer (SPF, RFC 7208).",
    provides=(ISenderFilter,),
    target="mailserver.filters.spf:SPFFactory",
)

dnsbl = Shipped(
    name="dnsbl",
    summary="Asks DNS lists about peers, the names they give and senders' domains (RFC 5782).",
    provides=(IPeerFilter, ISenderFilter),
    target="mailserver.filters.dnsbl:factory",
)

peer_rules = Shipped(
    name="peer_rules",
    summary="Looks at a peer's name in the DNS, the name that it gives, and whether it encrypts.",
    provides=(IPeerFilter, ISenderFilter),
    target="mailserver.filters.peer_rules:factory",
)

arc = Shipped(
    name="arc",
    summary="Verifies ARC chains, and says what trusted sealers had found (RFC 8617).",
    provides=(IContentFilter,),
    target="mailserver.filters.arc:ARCFactory",
)

dmarc = Shipped(
    name="dmarc",
    summary="Judges messages by what their authors' domains ask for (DMARC, RFC 9989).",
    provides=(IContentFilter,),
    target="mailserver.filters.dmarc:DMARCFactory",
)

dmarc_reports = Shipped(
    name="dmarc_reports",
    summary="Sends DMARC reports about mail that was judged, and reads those of others about our domains (RFC 9990).",
    provides=(IContentFilter, ITransactionEnd),
    target="mailserver.filters.dmarc_reports:DMARCReportsFactory",
)

tls_reports = Shipped(
    name="tls_reports",
    summary="Sends reports about TLS with other hosts, and reads those of others about ours (RFC 8460).",
    provides=(IContentFilter,),
    target="mailserver.filters.tls_reports:TLSReportsFactory",
)

greylist = Shipped(
    name="greylist",
    summary="Asks doubtful strangers to come again, once (greylisting, RFC 6647).",
    provides=(IRecipientFilter,),
    target="mailserver.filters.greylist:factory",
)

authentication_results = Shipped(
    name="authentication_results",
    summary="Writes what SPF, DKIM, ARC and DMARC have found into the message (Authentication-Results, RFC 8601).",
    provides=(IModifier,),
    target="mailserver.filters.authentication_results:AuthenticationResultsFactory",
)

lists = Shipped(
    name="lists",
    summary="White, black and grey lists of the site, of domains and of users, changed while the server runs.",
    provides=(ISenderFilter, IRecipientFilter, IRecipientContentFilter),
    target="mailserver.filters.lists:factory",
)

bayes = Shipped(
    name="bayes",
    summary="Scores messages by what the site and each user have learnt of others (Bayes).",
    provides=(IRecipientContentFilter,),
    target="mailserver.filters.bayes:factory",
)

account_guard = Shipped(
    name="account_guard",
    summary="Stops the sending of accounts that look as if others had taken them over.",
    provides=(ISenderFilter, IContentFilter, IAttemptFilter, IObserver),
    target="mailserver.filters.account_guard:factory",
)

contacts = Shipped(
    name="contacts",
    summary="Learns whom users write to, lets in what they expect, and may hold mail from strangers until they decide.",
    provides=(IRecipientFilter, IRecipientContentFilter),
    target="mailserver.filters.contacts:factory",
)

reputation = Shipped(
    name="reputation",
    summary="Judges by what came of earlier mail of the same network and of the same authenticated domains.",
    provides=(ISenderFilter, IContentFilter),
    target="mailserver.filters.reputation:factory",
)

suppression = Shipped(
    name="suppression",
    summary="Keeps accounts from writing to mailboxes that do not exist, after their hosts have said so on two days.",
    provides=(IRecipientFilter, IAttemptFilter, IObserver),
    target="mailserver.filters.suppression:factory",
)

subaddresses = Shipped(
    name="subaddresses",
    summary="Knows to whom users have given an address of its own (alice+shop@), and refuses those that are closed.",
    provides=(IRecipientFilter, IRecipientContentFilter),
    target="mailserver.filters.subaddresses:factory",
)
