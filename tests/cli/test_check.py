"""``mailserver check``: what it finds and where it says that it is."""

from __future__ import annotations

import json
import os
import socket
from importlib import resources
from types import SimpleNamespace
from unittest import mock

import apsw
from zope.interface import implementer

from mailserver.cli import check_tls
from mailserver.cli.check import _port_problem
from mailserver.config import Options
from mailserver.interfaces import IPeerFilter, IPeriodic
from mailserver.mail.answers import Pass, Verdict
from mailserver.mail.envelope import Peer
from mailserver.plugins.catalogue import FILTERS, Catalogue, FoundPlugin, discover
from tests.cli.support import CONFIGURATION, CommandCase, Said
from tests.ports import free_port
from tests.requires import require_root
from tests.tls.authority import Authority, Leaf

SPF = '[[filter]]\nuse = "spf"\n'  # of those whose mail an alias sends on
NO_DANE = '[dns]\ntrust = "never"\n'


class CheckCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.accounts.write_text('[account."alice@example.org"]\n')

    def check(self, more: str = "") -> Said:
        self.configure(CONFIGURATION + more)
        return self.command("check")

    def assertFault(self, said: Said, line: int, words: str) -> None:
        self.assertEqual(said.code, 1, said.out)
        self.assertIn(f"{self.config}:{line}: {words}", said.out)
        self.assertEqual(said.err, "")


class Check(CheckCase):
    def test_a_good_configuration_has_no_faults(self) -> None:
        said = self.check()
        self.assertEqual((said.code, said.out), (0, f"{self.config}: no faults, no warnings.\n"))

    def test_every_fault_of_the_file_is_printed(self) -> None:
        said = self.check('[limits]\nrecipients = 1\n[[filter]]\nuse = "denylst"\n[log]\nlevel = "loud"\n')
        self.assertFault(said, 10, "limits.recipients: must be at least 100")
        known = ", ".join(sorted({one.name for one in discover().found if any(map(one.is_a, FILTERS))}))
        words = f"there is no filter component 'denylst'; known: {known}; did you mean 'denylist'?"
        self.assertFault(said, 12, f"filter[0].use: {words}")
        self.assertFault(said, 14, "log.level: must be one of: debug, info, warn, error")
        self.assertIn(": 3 faults, no warnings.\n", said.out)

    def test_a_router_that_is_not_there_and_a_key_without_one_are_faults(self) -> None:
        self.assertFault(self.check('[router]\nuse = "nowhere"\n'), 10, "router.use: there is no router component 'nowhere'; known: none")
        self.assertFault(self.check('[router]\nturn = 3\n'), 10, "router.turn: ")
        self.assertIn("no faults", self.check('[router]\nuse = "domains"\n').out)

    def test_a_component_that_cannot_run_periodically_or_offer_commands_as_it_says_is_a_fault(self) -> None:
        @implementer(IPeerFilter, IPeriodic)
        class Hasty:
            interval_seconds = 0
            deadline_seconds = 1

            async def judge_peer(self, peer: Peer) -> Verdict:
                return Pass()

            async def run_periodically(self) -> None: ...

        factory = SimpleNamespace(
            name="hasty", summary="x", provides=IPeerFilter, options=Options, build=lambda *_: Hasty(), api_version="1.0"
        )
        shipped = discover()
        catalogue = Catalogue([*shipped.found, FoundPlugin(factory, "acme")])
        with mock.patch("mailserver.cli.check.discover", lambda: catalogue):
            said = self.check('[[filter]]\nuse = "hasty"\n')
        self.assertFault(said, 9, "filter[0]: the filter hasty cannot run periodically: interval_seconds is not between")

    def test_a_filter_whose_cost_is_no_number_is_a_fault_here_as_it_is_at_the_start(self) -> None:
        @implementer(IPeerFilter)
        class Costly:
            cost = "much"

            async def judge_peer(self, peer: Peer) -> Verdict:
                return Pass()

        factory = SimpleNamespace(
            name="costly", summary="x", provides=IPeerFilter, options=Options, build=lambda *_: Costly(), api_version="1.0"
        )
        catalogue = Catalogue([*discover().found, FoundPlugin(factory, "acme")])
        with mock.patch("mailserver.cli.check.discover", lambda: catalogue):
            said = self.check('[[filter]]\nuse = "costly"\n')
        self.assertFault(said, 9, "filter[0]: the component 'costly' declares a cost that is no number: 'much'")

    def test_faults_as_json(self) -> None:
        self.configure(CONFIGURATION + "x = 1\n")
        found = self.command("check", "--json").json
        self.assertEqual([(fault["line"], fault["key"]) for fault in found["faults"]], [(9, 'domain."example.org".x')])
        self.assertEqual(found["warnings"], [])

    def test_a_table_under_its_former_name_is_a_warning_and_said_once(self) -> None:
        said = self.check('[drop]\nusers = "all"\n')
        self.assertEqual((said.code, said.out.count("drop")), (0, 1), said.out)
        self.assertIn("warning: drop: is the former name of pickup: rename it\n", said.out)

    def test_aliases_that_go_round_are_a_fault_at_their_domain(self) -> None:
        said = self.check('[domain."example.org".aliases]\na = "b@example.org"\nb = "a@example.org"\n')
        self.assertFault(said, 9, 'domain."example.org".aliases: ')
        self.assertIn("leads back to itself", said.out)

    def test_an_alias_that_keeps_and_forwards_is_neither_fault_nor_warning(self) -> None:
        said = self.check('[domain."example.org".aliases]\nalice = ["alice", "x@elsewhere.example"]\n[relay]\nuse = "mx"\n' + NO_DANE + SPF)
        self.assertEqual((said.code, said.out), (0, f"{self.config}: no faults, no warnings.\n"))

    def test_filters_before_a_delivery_that_is_told_no_folder_are_a_warning(self) -> None:
        filters = '[[filter]]\nuse = "denylist"\n[delivery]\n'
        for silent, told in (
            ('use = "lmtp"\nsocket = "/run/lmtp"\n', 'recipient = "{user}{+folder}@{domain}"\n'),
            ('use = "pipe"\ncommand = ["/bin/true", "{user}"]\n', 'environment = {}\n'),
        ):
            self.assertIn("delivery: what a filter puts aside goes where all mail goes", self.check(filters + silent).out)
            told = silent.replace('"{user}"]', '"{user}", "{folder}"]') + told
            self.assertNotIn("puts aside", self.check(filters + told).out)

    def test_the_authentication_sockets_group_and_folder_are_looked_at(self) -> None:
        said = self.check('[authentication]\nsocket = "/no/such/auth.sock"\nsocket_group = "no-such-group"\n')
        self.assertFault(said, 11, "authentication.socket_group: there is no group no-such-group")
        self.assertIn("warning: authentication.socket: there is no folder /no/such yet", said.out)
        said = self.check(f'[authentication]\nsocket = "{self.folder}/auth.sock"\nsocket_group = "root"\n')
        self.assertEqual((said.code, said.out), (0, f"{self.config}: no faults, no warnings.\n"))

    def test_an_alias_to_nobody_is_a_warning(self) -> None:
        said = self.check('[domain."example.org".aliases]\nsales = "ghost@example.org"\n')
        self.assertEqual(said.code, 0)
        self.assertIn("warning: alias sales@example.org", said.out)

    def test_catch_all_postmaster_and_pattern_that_lead_nowhere_are_a_warning_each(self) -> None:
        said = self.check(
            'catch_all = "ghost@example.org"\npostmaster = "boo@example.org"\n'
            '[[domain."example.org".pattern]]\nmatch = "list-{x}"\nuser = "nobody"\n[domain."example.com"]\npostmaster = "b@example.com"\n'
        )
        self.assertEqual(said.code, 0)
        self.assertIn('warning: domain "example.org": catch_all: ', said.out)
        self.assertIn("warning: domain \"example.org\": pattern 'list-{x}': ", said.out)
        self.assertIn('warning: domain "example.com": postmaster: ', said.out)

    def test_those_that_lead_somewhere_are_none(self) -> None:
        said = self.check(
            'catch_all = "alice@example.org"\npostmaster = "alice+post@example.org"\n'
            '[[domain."example.org".pattern]]\nmatch = "list-{x}"\nuser = "alice"\n'
            '[[domain."example.org".pattern]]\nmatch = "{user}-{x}"\nuser = "{user}"\n'
        )
        self.assertEqual((said.code, said.out), (0, f"{self.config}: no faults, no warnings.\n"))

    def test_what_leads_to_another_host_while_nothing_is_sent_there_is_a_warning(self) -> None:
        more = '[domain."example.org".aliases]\nsales = ["alice@example.org", "x@elsewhere.example"]\n'
        self.assertIn("warning: alias sales@example.org: x@elsewhere.example is another host's", self.check(more).out)
        self.assertNotIn("warning:", self.check(more + '[relay]\nuse = "mx"\n').out)

    def test_mail_exchangers_need_no_server_to_be_checked(self) -> None:
        said = self.check('[relay]\nuse = "mx"\n[[filter]]\nuse = "null_mx"\n' + NO_DANE)
        self.assertEqual((said.code, said.out), (0, f"{self.config}: no faults, no warnings.\n"))

    def test_ports_of_both_families_that_clash_are_a_fault_where_the_host_says_so(self) -> None:
        port = free_port()
        both = f'[[listen]]\nservice = "mx"\nendpoint = "tcp:{port}:interface=127.0.0.1"\n[[listen]]\nservice = "mx"\nendpoint = "tcp6:{port}"\n'
        for only, is_told in ((False, True), (True, False)):
            with mock.patch("mailserver.cli.check._is_ipv6_only", return_value=only):
                said = self.check(both)
            self.assertEqual(said.code, int(is_told), said.out)
            self.assertEqual("clashes with listen[1]" in said.out, is_told, said.out)
        with mock.patch("mailserver.cli.check._is_ipv6_only", return_value=False):
            self.assertEqual(self.check(both.replace(f"tcp6:{port}", f"tcp6:{port}:interface=\\\\:\\\\:1")).code, 0)

    def test_a_log_that_nobody_can_write_is_a_fault(self) -> None:
        for path, told in (("nowhere/log", f"there is no folder {self.folder}/nowhere"), ("data", f"{self.data} is a folder")):
            self.assertFault(self.check(f'[log]\npath = "{path}"\n'), 10, f"log.path: {told}")
        self.assertEqual(self.check('[log]\npath = "data/log"\n').code, 0)
        self.assertEqual(os.listdir(self.data), [])

    def test_a_log_that_the_servers_user_cannot_write_is_a_fault(self) -> None:
        require_root("a file of root's")
        self.folder.chmod(0o755)
        os.chown(self.data, 54321, 54321)
        os.chown(self.accounts, 54321, 54321)
        told = f"log.path: the server's user, who owns {self.data} (54321), may not write {self.folder}"
        self.assertFault(self.check('[log]\npath = "log"\n'), 10, told)
        (self.folder / "log").touch(0o644)
        self.assertFault(self.command("check"), 10, f"{told}/log")
        os.chown(self.folder / "log", 54321, -1)
        self.assertEqual(self.command("check").code, 0)

    def test_accounts_in_a_folder_where_the_server_cannot_write_are_a_warning_where_somebody_logs_in(self) -> None:
        require_root("another user's folder")
        self.folder.chmod(0o755)
        os.chown(self.data, 54321, 54321)
        os.chown(self.accounts, 54321, 54321)
        self.assertNotIn("accounts.path", self.check().out)
        submission = '[[listen]]\nservice = "submission"\nendpoint = "tcp:0:interface=127.0.0.1"\n'
        self.assertIn(f"may not write to {self.folder}: it cannot put new hashes", self.check(submission).out)
        os.chown(self.folder, 54321, -1)
        self.assertNotIn("accounts.path", self.command("check").out)

    def test_a_password_that_the_servers_user_cannot_read_is_a_fault(self) -> None:
        require_root("a file of root's")
        self.folder.chmod(0o755)
        os.chown(self.data, 54321, 54321)
        (self.folder / "secret").write_text("x\n")
        (self.folder / "secret").chmod(0o600)
        relay = '[relay]\nuse = "smarthost"\nhost = "192.0.2.1"\ntls = "required"\nusername = "us"\npassword_file = "secret"\n'
        self.assertFault(self.check(relay), 14, f"relay.password_file: the server's user, who owns {self.data} (54321), may not read")
        os.chown(self.folder / "secret", -1, 54321)
        (self.folder / "secret").chmod(0o640)
        self.assertEqual(self.command("check").code, 0)

    def test_a_level_that_hides_failed_logins_from_fail2ban_is_a_warning(self) -> None:
        quiet = '[log]\nlevel = "warn"\n'
        self.assertNotIn("fail2ban", self.check(quiet).out)
        submission = '[[listen]]\nservice = "submission"\nendpoint = "tcp:0:interface=127.0.0.1"\n'
        self.assertIn('warning: log.level: "warn" leaves out the steps, login_failed among them', self.check(submission + quiet).out)
        self.assertNotIn("fail2ban", self.check(submission).out)

    def test_a_wide_network_whose_data_may_end_in_lf_is_a_warning(self) -> None:
        said = self.check('[limits]\nbare_lf_networks = ["10.0.0.0/16", "192.0.2.0/24", "2001:db8::/48", "2001:db8:1:2::/64"]\n')
        self.assertEqual(said.code, 0)
        self.assertIn("warning: limits.bare_lf_networks: 10.0.0.0/16 is wider than /24", said.out)
        self.assertIn("warning: limits.bare_lf_networks: 2001:db8::/48 is wider than /64", said.out)
        self.assertIn(": no faults, 2 warnings.\n", said.out)

    def test_a_proxy_in_such_a_network_is_a_warning_also_the_one_on_this_host(self) -> None:
        for more, networks, is_told in (
            ('proxies = ["192.0.2.16/28"]\n', ["192.0.2.17"], True),
            ('proxies = ["192.0.2.16/28"]\n', ["192.0.2.0/24"], True),
            ('proxies = ["192.0.2.16/28"]\n', ["192.0.2.1", "127.0.0.1"], False),
            ("", ["127.0.0.1"], True),
            ("", ["192.0.2.17"], False),
        ):
            listen = f'[[listen]]\nservice = "mx"\nendpoint = "haproxy:tcp:{free_port()}:interface=127.0.0.1"\n{more}'
            said = self.check(f"{listen}[limits]\nbare_lf_networks = {json.dumps(networks)}\n")
            self.assertEqual(said.code, 0, said.out)
            self.assertEqual("holds a proxy of a listener" in said.out, is_told, said.out)

    def test_a_database_of_accounts_is_asked(self) -> None:
        before = 'path = "accounts.toml"'
        self.configure(CONFIGURATION.replace(before, 'use = "sql"\npath = "accounts.db"'))
        self.assertFault(self.command("check"), 6, f"accounts: {self.folder}/accounts.db: ")
        with apsw.Connection(str(self.folder / "accounts.db")) as connection:
            connection.execute((resources.files("mailserver.accounts") / "accounts.sql").read_text())
        self.assertEqual(self.command("check").code, 0)
        self.configure(CONFIGURATION.replace(before, 'use = "sql"\npath = "accounts.db"\nquery_account = "SELECT it"'))
        self.assertFault(self.command("check"), 6, f"accounts: {self.folder}/accounts.db: no such column: it")

    def test_a_checker_that_cannot_be_used_is_a_fault(self) -> None:
        said = self.check('[authentication]\ncheckers = ["file:/etc/passwd", "nonsense:x", "anonymous"]\n')
        self.assertIn("authentication.checkers: 'anonymous' cannot check passwords\n", said.out)
        self.assertFault(said, 10, "authentication.checkers: 'nonsense:x': strcred knows no checker of this kind")

    def test_a_file_with_a_password_must_be_there_and_should_be_closed(self) -> None:
        relay = '[relay]\nuse = "smarthost"\nhost = "192.0.2.1"\ntls = "required"\nusername = "us"\npassword_file = "secret"\n'
        self.assertFault(self.check(relay), 14, f"relay.password_file: {self.folder}/secret: No such file or directory")
        (self.folder / "secret").write_text("x\n")
        (self.folder / "secret").chmod(0o644)
        said = self.check(relay)
        self.assertEqual(said.code, 0)
        self.assertIn(f"warning: relay.password_file: {self.folder}/secret can be read by every user of this host", said.out)
        (self.folder / "secret").chmod(0o600)
        self.assertNotIn("warning:", self.check(relay).out)

    def test_a_pattern_that_cannot_be_used_is_a_fault(self) -> None:
        said = self.check('[[domain."example.org".pattern]]\nmatch = "{user}{tag}"\n')
        self.assertEqual(said.code, 1)
        self.assertIn("nothing stands between {user} and {tag}", said.out)

    def test_faults_in_the_accounts_file_are_told_with_its_own_lines(self) -> None:
        self.accounts.write_text('[account."alice@example.org"]\npassword = "secret"\n')
        said = self.check()
        self.assertEqual(said.code, 1)
        self.assertIn(f"{self.accounts}:2: ", said.out)
        self.assertNotIn("secret", said.out)

    def test_a_missing_accounts_file_is_a_fault_at_its_table(self) -> None:
        self.accounts.unlink()
        self.assertFault(self.check(), 6, f"accounts: {self.accounts}: is not there yet: `mailserver user add` makes it")

    def test_a_component_that_cannot_be_built_is_a_fault_at_its_table(self) -> None:
        said = self.check('[delivery]\npath = "{data}/{nonsense}"\n')
        self.assertFault(said, 9, "delivery: the component 'maildir' could not be built")

    def test_data_that_is_a_file_is_a_fault(self) -> None:
        self.data.rmdir()
        self.data.write_text("")
        self.assertFault(self.check(), 2, f"data: {self.data} is no folder")

    def test_data_that_can_be_made_is_none(self) -> None:
        self.data.rmdir()
        self.assertEqual(self.check().code, 0)
        self.assertEqual(sorted(os.listdir(self.folder)), ["accounts.toml", "mailserver.toml"])

    def test_a_key_that_a_copy_of_data_takes_along_is_a_warning(self) -> None:
        (self.data / "accounts.key").write_bytes(b"k" * 32)
        self.assertIn(f"takes it along: move it to {self.data}-keys\n", self.check().out)
        keys = self.folder / "data-keys"
        keys.mkdir()
        (keys / "accounts.key").write_bytes(b"n" * 32)
        said = self.check()
        self.assertIn("takes it along: remove it (it is not used any more)\n", said.out)
        (self.data / "accounts.key").unlink()
        self.assertIn(": no faults, no warnings.\n", self.check().out)

    def test_a_configuration_for_root_that_is_not_roots_alone_is_a_warning(self) -> None:
        require_root("a file of root's")
        homes = '[delivery]\npath = "{home}/Maildir"\n'
        self.assertNotIn("root", self.check(homes).out)
        os.chown(self.config, 54321, -1)
        said = self.command("check")
        self.assertEqual(said.code, 0)
        self.assertIn("needs root at the start, which refuses it", said.out)
        self.assertIn("belongs to user 54321", said.out)
        self.assertNotIn("root", self.check().out)

    def test_a_configuration_that_others_may_write_is_refused_by_root_at_once(self) -> None:
        require_root("what root refuses")
        self.check()
        self.config.chmod(0o666)
        said = self.command("check")
        self.assertEqual(said.code, 78)
        self.assertIn("may be written by others (mode 0666)", said.err)

    def test_a_port_that_is_taken_is_a_warning(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            self.configure(CONFIGURATION.replace("tcp:0", f"tcp:{port}"))
            said = self.command("check")
        self.assertEqual(said.code, 0)
        self.assertIn(
            f"warning: tcp:{port}:interface=127.0.0.1: cannot be listened on: Address already in use", said.out
        )

    def test_only_of_ports_it_is_asked_whether_they_can_be_had(self) -> None:
        for endpoint in ("unix:/run/lmtp.sock", "systemd:domain=INET:index=0", "haproxy:unix:/run/lmtp.sock"):
            self.assertEqual(_port_problem(endpoint), "")

    def test_the_check_leaves_nothing_behind(self) -> None:
        self.check()
        self.assertEqual(os.listdir(self.data), [])


AUTHORITY = Authority()
TLS = '[[listen]]\nservice = "mx"\nendpoint = "tcp:0:interface=127.0.0.2"\ntls = "starttls"\n'
PAIR = '[tls]\ncertificate = "server.pem"\nkey = "server.key"\n'
CLIENTS = 'client_authorities = "ca.pem"\nclient_revocations = "crl.pem"\n'


class CheckTLS(CheckCase):
    """Certificates.  Line 9 begins the listener, 13 the table ``tls``, 16 what is added."""

    def look(self, leaf: Leaf, more: str = "", listen: str = TLS) -> Said:
        leaf.write(str(self.folder))
        return self.check(listen + PAIR + more)

    def test_a_good_pair_has_no_faults(self) -> None:
        said = self.look(AUTHORITY.leaf("mail.example.org"))
        self.assertEqual((said.code, said.out), (0, f"{self.config}: no faults, no warnings.\n"))

    def test_without_a_pair_there_is_nothing_to_complain_of_and_none_is_made(self) -> None:
        said = self.check(TLS)
        self.assertEqual((said.code, said.out), (0, f"{self.config}: no faults, no warnings.\n"))
        self.assertEqual(os.listdir(self.data), [])

    def test_a_pair_that_does_not_match_is_a_fault_at_the_key(self) -> None:
        AUTHORITY.leaf("mail.example.org").write(str(self.folder))
        (self.folder / "server.key").write_bytes(AUTHORITY.leaf("x.example").key_pem)
        said = self.check(TLS + PAIR)
        self.assertFault(said, 15, f"tls.key: {self.folder}/server.key: the key does not belong to the first certificate of")

    def test_a_certificate_that_is_not_there_is_a_fault_where_it_is_named(self) -> None:
        self.assertFault(self.check(TLS + PAIR), 14, f"tls.certificate: {self.folder}/server.pem: cannot be read: No such")

    def test_a_pair_for_another_name_is_looked_at_too(self) -> None:
        AUTHORITY.leaf("other.example").write(str(self.folder), "named")
        named = '[tls.name."mail.example.net"]\ncertificate = "named.pem"\nkey = "missing.key"\n'
        said = self.look(AUTHORITY.leaf("mail.example.org"), named)
        self.assertFault(said, 18, f'tls.name."mail.example.net".key: {self.folder}/missing.key: cannot be read')
        said = self.look(AUTHORITY.leaf("mail.example.org"), named.replace("missing", "named"))
        self.assertEqual(said.code, 0)
        self.assertIn(f"warning: {self.folder}/named.pem: the certificate is not for mail.example.net", said.out)

    def test_what_is_doubtful_is_a_warning(self) -> None:
        for leaf, words in (
            (AUTHORITY.leaf("mail.example.org", days=(-80, 10)), "the certificate expires soon"),
            (AUTHORITY.leaf("mail.example.org", days=(-80, -1)), "the certificate has expired"),
            (AUTHORITY.leaf("www.example.org"), "the certificate is not for mail.example.org, but for www.example.org"),
        ):
            said = self.look(leaf)
            self.assertEqual(said.code, 0)
            self.assertIn(f"warning: {self.folder}/server.pem: {words}", said.out)
            self.assertIn("no faults, 1 warning.", said.out)

    def test_a_key_that_this_user_may_not_read_is_a_warning(self) -> None:
        with mock.patch.object(check_tls, "_is_forbidden", lambda file: file.endswith(".key")):
            said = self.look(AUTHORITY.leaf("mail.example.org"))
        self.assertEqual(said.code, 0)
        self.assertIn(f"warning: tls.key: this user may not read {self.folder}/server.key", said.out)

    def test_ciphers_that_nobody_knows_are_a_fault(self) -> None:
        for with_pair in (True, False):
            ciphers = 'ciphers = "NONSENSE"\n'
            said = self.look(AUTHORITY.leaf("mail.example.org"), ciphers) if with_pair else self.check(TLS + "[tls]\n" + ciphers)
            self.assertFault(said, 16 if with_pair else 14, "tls.ciphers: OpenSSL refuses")

    def test_lists_for_client_certificates_are_read(self) -> None:
        (self.folder / "ca.pem").write_bytes(AUTHORITY.pem)
        (self.folder / "crl.pem").write_bytes(b"nothing")
        said = self.look(AUTHORITY.leaf("mail.example.org"), CLIENTS)
        self.assertFault(said, 17, f"tls.client_revocations: {self.folder}/crl.pem: there is no list of revoked certificates")
        (self.folder / "crl.pem").write_bytes(AUTHORITY.revocations(days=(-9, -1)))
        said = self.look(AUTHORITY.leaf("mail.example.org"), CLIENTS)
        self.assertEqual(said.code, 0)
        self.assertIn(f"warning: {self.folder}/crl.pem: the list of CN=Test CA has expired", said.out)
        (self.folder / "ca.pem").unlink()
        said = self.look(AUTHORITY.leaf("mail.example.org"), CLIENTS)
        self.assertFault(said, 16, f"tls.client_authorities: {self.folder}/ca.pem: cannot be read")

    def test_a_listener_whose_clients_nobody_vouches_for_is_a_fault(self) -> None:
        said = self.look(AUTHORITY.leaf("mail.example.org"), listen=TLS + 'client_certificate = "require"\n')
        self.assertFault(said, 13, "listen[1].client_certificate: nobody could connect")
        said = self.look(AUTHORITY.leaf("mail.example.org"), listen=TLS + 'client_certificate = "request"\n')
        self.assertEqual(said.code, 0)

    def test_certificates_that_no_listener_uses_are_a_warning(self) -> None:
        said = self.check(PAIR)
        self.assertEqual(said.code, 0)
        self.assertIn("warning: tls: no listener has tls =", said.out)
