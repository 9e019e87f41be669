"""Six configurations of Postfix as they are met, and where their mail goes.

What is expected was asked of Postfix itself (`make proof P=moving` asks again): the mail's transport and next hop, after aliases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["HOUSES", "MASTER", "PostfixHouse", "Trip", "lay_out"]

MASTER = """\
smtp      inet  n       -       y       -       -       smtpd
pickup    unix  n       -       y       60      1       pickup
cleanup   unix  n       -       y       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       y       1000?   1       tlsmgr
rewrite   unix  -       -       y       -       -       trivial-rewrite
bounce    unix  -       -       y       -       0       bounce
defer     unix  -       -       y       -       0       bounce
trace     unix  -       -       y       -       0       bounce
verify    unix  -       -       y       -       1       verify
flush     unix  n       -       y       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       y       -       -       smtp
relay     unix  -       -       y       -       -       smtp
        -o syslog_name=postfix/$service_name
showq     unix  n       -       y       -       -       showq
error     unix  -       -       y       -       -       error
retry     unix  -       -       y       -       -       error
discard   unix  -       -       y       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       y       -       -       lmtp
anvil     unix  -       -       y       -       1       anvil
scache    unix  -       -       y       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
maildrop  unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}
"""
SUBMISSION = """\
submission inet n       -       y       -       -       smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o milter_macro_daemon_name=ORIGINATING
"""
PASSWD = """\
root:x:0:0:root:/root:/bin/bash
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
ute:x:1000:1000::/home/ute:/bin/bash
max:x:1001:1001::/home/max:/bin/bash
"""


@dataclass(frozen=True, slots=True)
class Trip:
    """Mail of `sender` to `recipient`, and where it goes, each end in one line:

    ``local ADDRESS``, ``HOST:PORT ADDRESS`` (``mx`` for the domain's own hosts), ``refused``.
    """

    recipient: str
    ends: tuple[str, ...]
    sender: str = "stranger@elsewhere.example"


@dataclass(frozen=True, slots=True)
class PostfixHouse:
    """`main` and `master` are the files, `files` those beside them; `etc` those of the host's /etc."""

    name: str
    main: str
    trips: Sequence[Trip]
    files: Mapping[str, str] = field(default_factory=dict)
    etc: Mapping[str, str] = field(default_factory=dict)
    master: str = MASTER
    home: str = ""  # the domain in which the host's users are, for us


def lay_out(house: PostfixHouse, root: Path) -> Path:
    """Write it below `root` as another host's files; return the folder of main.cf."""
    folder = root / "etc" / "postfix"
    folder.mkdir(parents=True)
    (folder / "main.cf").write_text(house.main)
    (folder / "master.cf").write_text(house.master)
    for name, text in house.files.items():
        (folder / name).write_text(text)
    for name, text in ({"passwd": PASSWD} | dict(house.etc)).items():
        (root / "etc" / name).write_text(text)
    return folder


INFO = ("local alice@company.example", "local bob@company.example", "mx:25 bob@home.example")
COMPANY = PostfixHouse(
    "a small company with virtual domains",
    """\
# the company's mail
compatibility_level = 3.6
smtpd_banner = $myhostname ESMTP
biff = no
myhostname = mail.company.example
mydomain = company.example
myorigin = $mydomain
mydestination = localhost
mynetworks = 127.0.0.0/8, [::ffff:127.0.0.0]/104
    [::1]/128 192.0.2.0/28
recipient_delimiter = +
message_size_limit = 31457280
virtual_mailbox_domains = company.example, company.test
virtual_mailbox_base = /var/vmail
virtual_mailbox_maps = hash:/etc/postfix/vmailbox
virtual_alias_domains = old.example, shop.example
virtual_alias_maps = hash:/etc/postfix/virtual
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
alias_maps =
smtpd_tls_cert_file = /etc/ssl/mail.pem
smtpd_tls_key_file = /etc/ssl/mail.key
smtpd_tls_security_level = may
smtp_tls_security_level = may
smtpd_sasl_auth_enable = no
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated,
    reject_unauth_destination, reject_rbl_client zen.list.example=127.0.0.[2..11],
    warn_if_reject reject_rbl_client other.list.example
smtpd_milters = inet:127.0.0.1:8891
milter_default_action = accept
header_checks = regexp:/etc/postfix/header_checks
""",
    (
        Trip("alice@company.example", ("local alice@company.example",)),
        Trip("Alice+lists@company.example", ("local alice@company.example",)),
        Trip("info@company.example", INFO),
        Trip("boss@company.example", ("mx:25 boss@provider.example", "local carol@company.example")),
        Trip("bob@company.example", ("local bob@company.example", "mx:25 bob@home.example")),
        Trip("nobody@company.example", ("refused",)),
        Trip("sales@shop.example", INFO),
        Trip("anything@shop.example", ("local carol@company.example",)),
        Trip("alice@old.example", ("local alice@company.example",)),
        Trip("info@old.example", INFO),
        Trip("dave@company.test", ("local dave@company.test",)),
        Trip("friend@far.example", ("mx:25 friend@far.example",)),
    ),
    {
        "vmailbox": "alice@company.example company.example/alice/\nbob@company.example company.example/bob/\n"
        "carol@company.example\n  company.example/carol/\ndave@company.test company.test/dave/\n",
        "virtual": "# who is who\ninfo@company.example alice@company.example, bob@company.example\n"
        "boss@company.example boss@provider.example carol@company.example\n"
        "bob@company.example bob@company.example, bob@home.example\n"
        "sales@shop.example info@company.example\n@shop.example carol@company.example\n"
        "@old.example @company.example\n",
        "header_checks": "/^Subject: viagra/ REJECT\n",
    },
    master=MASTER + SUBMISSION,
)

NULL_CLIENT = PostfixHouse(
    "a null client with a relayhost that wants a password",
    """\
compatibility_level = 3.6
myhostname = web1.example.org
myorigin = example.org
mydestination =
inet_interfaces = loopback-only
local_transport = error:local delivery is disabled
relayhost = [smtp.provider.example]:587
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd
smtp_sasl_security_options = noanonymous
smtp_tls_security_level = encrypt
""",
    (
        Trip("somebody@far.example", ("smtp.provider.example:587 somebody@far.example",), "www@example.org"),
        Trip("admin@example.org", ("smtp.provider.example:587 admin@example.org",), "www@example.org"),
    ),
    {"sasl_passwd": "[smtp.provider.example]:587 web1@example.org:pass:with:colons\n"},
)

BACKUP = PostfixHouse(
    "a second mail exchanger with transports",
    """\
compatibility_level = 3.6
myhostname = mx2.backup.example
mydestination = $myhostname
local_recipient_maps =
alias_maps =
relay_domains = customer.example, partner.example, hash:/etc/postfix/relay_domains
relay_recipient_maps = hash:/etc/postfix/relay_recipients
transport_maps = hash:/etc/postfix/transport
parent_domain_matches_subdomains = relay_domains
smtp_tls_security_level = dane
maximal_queue_lifetime = 10d
mynetworks = 127.0.0.0/8
""",
    (
        Trip("a@customer.example", ("mx1.customer.example:25 a@customer.example",)),
        Trip("a@sub.customer.example", ("hub.customer.example:2525 a@sub.customer.example",)),
        Trip("a@partner.example", ("mx:25 a@partner.example",)),
        Trip("a@third.example", ("10.1.2.3:26 a@third.example",)),
        Trip("a@closed.example", ("refused",), "a@customer.example"),
        Trip("a@far.example", ("mx:25 a@far.example",), "a@customer.example"),
        Trip("a@by-mx.example", ("gateway.example:25 a@by-mx.example",), "a@customer.example"),
    ),
    {
        "relay_domains": "third.example OK\n",
        "relay_recipients": "@customer.example OK\n",
        "transport": "customer.example smtp:[mx1.customer.example]\n.customer.example relay:[hub.customer.example]:2525\n"
        "partner.example :\nthird.example relay:[10.1.2.3]:26\nclosed.example error:5.7.1 no mail for closed.example\n"
        "by-mx.example smtp:gateway.example\nsomebody@far.example smtp:[special.example]\n",
    },
)

DEBIAN = PostfixHouse(
    home="debian.example",
    name="a Debian system with /etc/aliases",
    main=
    """\
# See /usr/share/postfix/main.cf.dist for a commented, more complete version
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
biff = no
append_dot_mydomain = no
readme_directory = no
compatibility_level = 3.6
smtpd_tls_cert_file=/etc/ssl/certs/ssl-cert-snakeoil.pem
smtpd_tls_key_file=/etc/ssl/private/ssl-cert-snakeoil.key
smtpd_tls_security_level=may
smtp_tls_CApath=/etc/ssl/certs
smtp_tls_security_level=may
smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache
smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination
myhostname = host.debian.example
alias_maps = hash:/etc/aliases
alias_database = hash:/etc/aliases
myorigin = /etc/mailname
mydestination = $myhostname, debian.example, localhost.debian.example, , localhost
relayhost =
mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128
mailbox_size_limit = 0
recipient_delimiter = +
inet_interfaces = all
inet_protocols = all
home_mailbox = Maildir/
""",
    trips=(
        Trip("ute@debian.example", ("local ute@debian.example",)),
        Trip("ute@localhost", ("local ute@debian.example",)),
        Trip("ute+x@host.debian.example", ("local ute@debian.example",)),
        Trip("postmaster@debian.example", ("local ute@debian.example",)),
        Trip("Webmaster@debian.example", ("local max@debian.example", "local ute@debian.example", "mx:25 web@agency.example")),
        Trip("root@host.debian.example", ("local ute@debian.example",)),
        Trip("x@far.example", ("mx:25 x@far.example",)),
    ),
    etc={
        "mailname": "debian.example\n",
        "aliases": "# See man 5 aliases for format\npostmaster:    root\nroot: ute\nwebmaster: max,\n  web@agency.example\n"
        'trash: "|/usr/bin/cat"\nkeep: /var/keep, ute\nmax: max, ute\n',
    },
)

BIG = PostfixHouse(
    "a big one with sender-dependent relays and restrictions",
    """\
compatibility_level = 3.6
myhostname = out.big.example
mydomain = big.example
org = big.example
myorigin = $mydomain
mydestination = $myhostname localhost.$mydomain localhost
alias_maps =
local_recipient_maps =
virtual_alias_domains =
virtual_mailbox_domains = $org ${sub_houses}
sub_houses = north.$org, south.$org
virtual_mailbox_maps = hash:/etc/postfix/boxes
virtual_alias_maps = hash:/etc/postfix/aliases-virtual, regexp:/etc/postfix/patterns
virtual_transport = lmtp:unix:private/dovecot-lmtp
relayhost = [filter.big.example]:10025
sender_dependent_relayhost_maps = hash:/etc/postfix/senders
smtp_sender_dependent_authentication = yes
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = hash:/etc/postfix/passwords
smtp_tls_security_level = may
smtp_tls_policy_maps = inline:{ [smtp.news.example]:465=secure, bank.example=encrypt }
transport_maps = hash:/etc/postfix/transport
smtpd_client_restrictions = check_client_access cidr:/etc/postfix/clients.cidr
smtpd_helo_required = yes
smtpd_helo_restrictions = permit_mynetworks reject_invalid_helo_hostname
smtpd_sender_restrictions = check_sender_access hash:/etc/postfix/senders-access, reject_unknown_sender_domain
smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination,
  check_policy_service inet:127.0.0.1:10023, reject_rbl_client bl.list.example
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
mynetworks = 10.0.0.0/8 127.0.0.0/8
maximal_backoff_time = 1h
minimal_backoff_time = 5m
default_destination_concurrency_limit = 10
smtpd_recipient_limit = 2000
recipient_delimiter = +-
sender_bcc_maps = hash:/etc/postfix/bcc
content_filter =
""",
    (
        Trip("x@far.example", ("filter.big.example:10025 x@far.example",), "anybody@big.example"),
        Trip("x@far.example", ("smtp.news.example:465 x@far.example",), "news@big.example"),
        Trip("x@far.example", ("relay.south.example:25 x@far.example",), "who@south.big.example"),
        Trip("x@far.example", ("filter.big.example:10025 x@far.example",), "boss@south.big.example"),
        Trip("x@direct.example", ("mx:25 x@direct.example",), "news@big.example"),
        Trip("x@a.inner.example", ("hub.inner.example:25 x@a.inner.example",), "news@big.example"),
        Trip("anna@big.example", ("local anna@big.example",)),
        Trip("anna-list@north.big.example", ("local anna@north.big.example",)),
        Trip("team@big.example", ("local anna@big.example", "local ben@south.big.example"), "news@big.example"),
        Trip("nobody@big.example", ("refused",)),
    ),
    {
        "boxes": "anna@big.example x\nanna@north.big.example x\nben@south.big.example x\nboss@south.big.example x\n",
        "aliases-virtual": "team@big.example anna@big.example ben@south.big.example\n",
        "patterns": "/^list-(.*)@big\\.example$/ anna@big.example\n",
        "senders": "news@big.example [smtp.news.example]:465\n@south.big.example [relay.south.example]\n"
        "boss@south.big.example DUNNO\n",
        "passwords": "news@big.example news:secret1\n[filter.big.example]:10025 filter:secret2\nunused.example a:b\n",
        "transport": "direct.example smtp:\n.inner.example :[hub.inner.example]\n",
        "clients.cidr": "# spammers\n198.51.100.0/24 REJECT spam\n203.0.113.7 OK\n",
        "senders-access": "spam.example REJECT\nbad@evil.example 550 no\nfriend.example OK\n",
        "bcc": "audit@big.example archive@big.example\n",
    },
)

ODD = PostfixHouse(
    home="odd.example",
    name="one in which it matters who comes first",
    main="""\
compatibility_level = 3.6
myhostname = mx.odd.example
mydomain = odd.example
myorigin = odd.example
mydestination = odd.example, mx.odd.example
mynetworks = 127.0.0.0/8
alias_maps = hash:/etc/aliases
recipient_delimiter = +
virtual_mailbox_domains = cat.example, dog.example
virtual_mailbox_maps = hash:/etc/postfix/boxes
virtual_alias_maps = hash:/etc/postfix/virtual
relay_domains = up.example
transport_maps = hash:/etc/postfix/transport
relayhost = relay.example:2525
sender_dependent_relayhost_maps = hash:/etc/postfix/senders
""",
    trips=(
        Trip("dave@cat.example", ("local alice@dog.example",)),
        Trip("bob@cat.example", ("local bob@cat.example",)),
        Trip("x+y@cat.example", ("local alice@dog.example",)),
        Trip("list+sub@dog.example", ("local bob@cat.example",)),
        Trip("list@dog.example", ("local alice@dog.example",)),
        Trip("hostmaster@odd.example", ("local alice@dog.example",)),
        Trip("hostmaster@mx.odd.example", ("local alice@dog.example",)),
        Trip("ute@odd.example", ("local ute@odd.example",)),
        Trip("TEAM@ODD.example", ("local ute@odd.example", "local bob@cat.example", "relay.example:2525 x@far.example")),
        Trip("max@odd.example", ("local ute@odd.example",)),
        Trip("chain1@dog.example", ("local ute@odd.example",)),
        Trip("a@sub.up.example", ("relay.example:2525 a@sub.up.example",)),
        Trip("a@up.example", ("up-host.example:25 a@up.example",)),
        Trip("z@by.example", ("by-host.example:25 z@by.example",), "ute@odd.example"),
        Trip("z@far.example", ("other.example:25 z@far.example",), "ute@odd.example"),
        Trip("z@far.example", ("nul.example:25 z@far.example",), ""),
    ),
    files={
        "boxes": "alice@dog.example x\nbob@cat.example x\ndave@cat.example x\n",
        "virtual": "@cat.example alice@dog.example\nbob@cat.example bob@cat.example\nlist+sub@dog.example bob@cat.example\n"
        "list@dog.example alice@dog.example\nhostmaster alice@dog.example\nchain1@dog.example chain2@dog.example\n"
        "chain2@dog.example ute\n",
        "transport": "up.example smtp:[up-host.example]\nby.example smtp:[by-host.example]\n",
        "senders": "ute@odd.example [other.example]\n<> [nul.example]\n",
    },
    etc={"aliases": "team: ute, bob@cat.example, x@far.example\nmax: ute\n"},
)

HOUSES = (COMPANY, NULL_CLIENT, BACKUP, DEBIAN, BIG, ODD)
