"""What `mailserver check` says of web listeners."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.check_web import web_doubts, web_faults
from mailserver.config import Configuration, ConfigurationError, parse
from tests.tls.authority import Authority

HEAD = 'hostname = "mx.example.org"\ndata = "/tmp/x"\n[domain."example.org"]\n[[listen]]\nservice = "submission"\nendpoint = "tcp:465"\ntls = "implicit"\n'
LISTENER = '[[listen]]\nservice = "web"\nendpoint = "tcp:443"\ntls = "implicit"\n'


def read(text: str) -> Configuration:
    return parse(HEAD + text, file="mailserver.toml", directory="/etc/mailserver")


class WebListeners(SynchronousTestCase):
    def test_a_good_one_has_neither_faults_nor_doubts_and_without_one_nothing_is_said(self) -> None:
        for text in (LISTENER + '[web]\nimap = "imap.example.org"\n', '[web]\ncertificate = "/nowhere"\nkey = "/nowhere"\nsocket = "/x"\nsocket_group = "nobody-has-it"\n'):
            self.assertEqual((web_doubts(read(text)), list(web_faults(read(text)))), ([], []))

    def test_what_is_not_served_is_told(self) -> None:
        plain = LISTENER.replace('tls = "implicit"\n', "")
        self.assertRegex(" ".join(web_doubts(read(plain))), "no web listener has TLS.*web.imap and web.pop3 are missing")
        text = HEAD.replace('"tcp:465"', '"tcp:465:interface=127.0.0.1"') + LISTENER + '[web]\nimap = "imap.example.org"\n'
        self.assertRegex(" ".join(web_doubts(parse(text, file="x", directory="/"))), "no submission listener")

    def test_the_mail_hosts_key_and_files_that_cannot_be_used_are_told(self) -> None:
        folder = Path(self.mktemp()).absolute()
        os.mkdir(folder)
        one, other = Authority().leaf("a.example").write(str(folder), "a"), Authority().leaf("b.example").write(str(folder), "b")
        text = f'[tls]\ncertificate = "{one.certificate}"\nkey = "{one.key}"\n{LISTENER}[web]\nimap = "i.example.org"\ncertificate = "{{}}"\nkey = "{{}}"\n'
        self.assertIn("the mail host's, too", web_doubts(read(text.format(one.certificate, one.key)))[0])
        self.assertEqual([key for key, _ in web_faults(read(text.format(one.certificate, other.key)))], ["web.key"])
        group = LISTENER + '[web]\nsocket = "/run/x.sock"\nsocket_group = "nobody-has-it"\n'
        self.assertEqual([key for key, _ in web_faults(read(group))], ["web.socket_group"])

    def test_what_fits_no_web_listener_is_a_fault_of_its_own(self) -> None:
        for text, words in (
            (LISTENER.replace("implicit", "starttls"), "from the first octet on or none"),
            (LISTENER + 'token_file = "/x"\n', "no logins, certificates or tokens"),
            (LISTENER + 'client_certificate = "request"\n', "no logins, certificates or tokens"),
            (LISTENER.replace("tcp:443", "onion:443"), "on a tcp, tcp6, unix or systemd endpoint"),
            (LISTENER + '[web]\nuser = "root"\n', "not root"),
            (LISTENER + '[web]\nimap = "imap.example.org:0"\n', "host name, or one and a port"),
            (LISTENER + '[web]\nimap = "127.0.0.1"\n', "is not a host name"),
            (LISTENER + '[web]\ncertificate = "/x"\n', "go together"),
            (LISTENER + '[web]\nmta_sts_max_age = "1h"\n', "86400"),
        ):
            self.assertIn(words, str(self.assertRaises(ConfigurationError, read, text)), text)
