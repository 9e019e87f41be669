"""From text to a configuration, or to all of its faults with file, line and key."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import ConfigurationError, Count, Options, load
from mailserver.mail.address import Address
from tests.config.support import LEAST, faults, parsed, with_more


class WholeFiles(SynchronousTestCase):
    def test_the_least_configuration_has_safe_defaults(self) -> None:
        configuration = parsed(LEAST)
        self.assertEqual(configuration.data, "/etc/mail/data")
        self.assertEqual(configuration.directory, "/etc/mail")
        self.assertEqual(configuration.relay.use, "none")
        self.assertEqual(configuration.relay.networks, ())
        self.assertEqual(configuration.listen[0].tls, "none")
        self.assertEqual(configuration.limits.message_bytes, 52428800)
        self.assertEqual(configuration.queue.retry, (60, 300, 900, 3600, 14400))
        self.assertEqual((configuration.accounts.use, configuration.delivery.use), ("file", "maildir"))

    def test_every_section_arrives(self) -> None:
        configuration = with_more(
            """
            [limits]
            message_bytes = "100M"
            command_seconds = "2m"
            bare_lf_networks = ["10.0.0.0/8"]
            [domain."Example.org"]
            catch_all = "Info@Example.org"
            subaddress = "-"
            [domain."Example.org".aliases]
            sales = ["alice@example.org", "bob@elsewhere.example"]
            single = "alice"
            [[domain."Example.org".pattern]]
            match = "{user}.{tag}"
            folder = "{tag}"
            [domain."*.example.org"]
            [relay]
            use = "capture"
            networks = ["127.0.0.0/8", "::1"]
            path = "out"
            [queue]
            retry = ["1m", 90]
            expire = "2d"
            [log]
            format = "json"
            path = "mail.log"
            [[filter]]
            use = "denylist"
            networks = ["192.0.2.0/24"]
            services = ["mx"]
            on_error = "skip"
            deadline = "2s"
            """
        )
        self.assertEqual(configuration.limits.message_bytes, 104857600)
        self.assertEqual(configuration.limits.command_seconds, 120)
        self.assertEqual(configuration.limits.bare_lf_networks, (ipaddress.ip_network("10.0.0.0/8"),))
        self.assertEqual(list(configuration.domain), ["example.org", "*.example.org"])
        domain = configuration.domain["example.org"]
        self.assertEqual((domain.catch_all, domain.subaddress), (Address("Info", "example.org"), "-"))
        self.assertEqual(
            domain.aliases["sales"], (Address("alice", "example.org"), Address("bob", "elsewhere.example"))
        )
        self.assertEqual(domain.aliases["single"], (Address("alice", ""),))
        self.assertEqual(
            [(one.match, one.user, one.folder) for one in domain.pattern], [("{user}.{tag}", "{user}", "{tag}")]
        )
        self.assertEqual(configuration.relay.networks, tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1"))))
        self.assertEqual(configuration.relay.options, {"path": "out"})
        self.assertEqual((configuration.queue.retry, configuration.queue.expire), ((60, 90), 172800))
        self.assertEqual((configuration.log.format, configuration.log.path), ("json", "/etc/mail/mail.log"))
        (denylist,) = configuration.filter
        self.assertEqual((denylist.services, denylist.on_error, denylist.deadline), (("mx",), "skip", 2.0))
        self.assertEqual(denylist.options, {"networks": ["192.0.2.0/24"]})

    def test_nothing_can_be_changed_afterwards(self) -> None:
        configuration = parsed(LEAST)
        self.assertRaises(ValueError, setattr, configuration.limits, "recipients", 5)
        self.assertRaises(ValueError, setattr, configuration, "data", "/")


class Faults(SynchronousTestCase):
    def test_all_faults_are_told_at_once_with_their_lines(self) -> None:
        text = (
            'hostname = "mail"\nworkers = 2\n[[listen]]\nservice = "mz"\nendpoint = "tcp:99999"\n[[listen]]\nservce = "mx"\n'
            'endpoint = "tcp:25"\n[limits]\nmessage_bytes = "50Q"\nrecipients = 5\n[delivry]\n'
        )
        self.assertEqual(
            faults(text),
            [
                "1 data: is missing",
                "2 workers: only 1 is available in this version",
                "4 listen[0].service: must be one of: mx, submission, lmtp, metrics, web",
                "5 listen[0].endpoint: '99999' is not a port: a number from 0 to 65535",
                "6 listen[1].service: is missing",
                "7 listen[1].servce: is not a key that is known here; did you mean 'service'?",
                '10 limits.message_bytes: must be a size: a count of octets, or text such as "512K", "50M", "2G"',
                "11 limits.recipients: must be at least 100",
                "12 delivry: is not a key that is known here; did you mean 'delivery'?",
            ],
        )

    def fault(self, more: str) -> str:
        (fault,) = faults(LEAST + more)
        return fault

    def test_wishes_that_need_tls_need_a_listener_that_has_it(self) -> None:
        words = 'listen[0]: require_tls and client_certificate need tls = "starttls" or "implicit"'
        self.assertIn(words, self.fault("require_tls = true\n"))
        self.assertIn(words, self.fault('client_certificate = "request"\n'))
        self.assertEqual(faults(LEAST + 'tls = "starttls"\nrequire_tls = true\nclient_certificate = "require"\n'), [])

    def test_proxies_are_for_listeners_that_await_their_header(self) -> None:
        words = "listen[0]: proxies are for haproxy: endpoints that are no Unix sockets"
        proxied, proxies = LEAST.replace('"tcp:25"', '"haproxy:tcp:25"'), 'proxies = ["192.0.2.0/24", "::1"]\n'
        self.assertIn(words, self.fault(proxies))
        self.assertIn(words, faults(LEAST.replace('"tcp:25"', '"haproxy:unix:/run/x"') + proxies)[0])
        self.assertIn("proxies without a network", faults(proxied + "proxies = []\n")[0])
        self.assertEqual(len(parsed(proxied + proxies).listen[0].proxies or ()), 2)
        self.assertIsNone(parsed(proxied).listen[0].proxies)

    def test_a_group_for_the_authentication_socket_needs_the_socket(self) -> None:
        self.assertIn("socket_group without a socket", self.fault('[authentication]\nsocket_group = "dovecot"\n'))

    def test_certificate_and_key_go_together_and_revocations_with_authorities(self) -> None:
        self.assertIn("certificate and key go together", self.fault('[tls]\ncertificate = "a.pem"\n'))
        self.assertIn(
            "client_revocations needs client_authorities", self.fault('[tls]\nclient_revocations = "a.pem"\n')
        )

    def test_a_fingerprint_has_64_hexadecimal_digits_with_colons_or_without(self) -> None:
        self.assertIn("SHA-256 fingerprint", self.fault('[relay]\ncertificates = ["12:34"]\n'))
        digits = ":".join(["AB"] * 32)
        self.assertEqual(parsed(LEAST + f'[relay]\ncertificates = ["{digits}"]\n').relay.certificates, ("ab" * 32,))

    def test_a_value_of_the_wrong_kind_is_not_bent_into_shape(self) -> None:
        self.assertEqual(self.fault("require_tls = 1\n"), "6 listen[0].require_tls: must be true or false")
        self.assertEqual(self.fault("[limits]\nhops = 2.5\n"), "7 limits.hops: must be a whole number")
        self.assertEqual(self.fault('[queue]\nretry = "1m"\n'), "7 queue.retry: must be a list")
        self.assertEqual(self.fault("[log]\npath = 5\n"), "7 log.path: must be text")
        self.assertEqual(faults("log = 5\n" + LEAST), ["1 log: must be a table"])
        self.assertEqual(faults("filter = 5\n" + LEAST), ["1 filter: must be a list"])
        self.assertEqual(faults("accounts = 5\n" + LEAST), ["1 accounts: must be a table"])

    def test_a_fault_deep_in_a_list_has_its_own_line(self) -> None:
        more = '[domain."example.org".aliases]\nsales = [\n  "alice@example.org",\n  "bob@",\n]\n'
        self.assertEqual(
            self.fault(more),
            "9 domain.\"example.org\".aliases.sales[1]: 'bob@' is not an address: not a domain name",
        )

    def test_a_limit_cannot_be_switched_off_by_accident(self) -> None:
        self.assertEqual(self.fault("[limits]\ncommand_seconds = 0\n"), "7 limits.command_seconds: must be more than 0")
        self.assertEqual(self.fault('[limits]\nmessage_bytes = "0K"\n'), "7 limits.message_bytes: must be more than 0")
        self.assertEqual(self.fault("[limits]\nconnections = 0\n"), "7 limits.connections: must be at least 1")
        self.assertEqual(self.fault('[limits]\nreactor_seconds = "10ms"\n'), "7 limits.reactor_seconds: must be at least 0.05")
        self.assertEqual(self.fault('[queue]\nretry = ["1m", 0]\n'), "7 queue.retry[1]: must be at least 1")
        self.assertEqual(with_more("[limits]\ngreeting_delay_seconds = 0\n").limits.greeting_delay_seconds, 0)

    def test_values_that_contradict_each_other_are_a_fault_of_their_table(self) -> None:
        self.assertIn("6 limits: soft_errors is above hard_errors", self.fault("[limits]\nsoft_errors = 30\n"))
        self.assertIn("6 queue: warn is later than expire", self.fault('[queue]\nexpire = "1h"\n'))

    def test_one_domain_in_two_spellings_is_a_fault(self) -> None:
        self.assertIn(
            "7 domain.\"EXAMPLE.org\": is the domain 'example.org'",
            self.fault('[domain."example.org"]\n[domain."EXAMPLE.org"]\n'),
        )

    def test_a_domain_with_the_names_of_another_says_nothing_else_and_the_other_is_here(self) -> None:
        def second(table: str, first: str = "", name: str = "b.example") -> str:
            return f'[domain."a.example"]\n{first}[domain."{name}"]\n{table}'

        self.assertEqual(with_more(second('same_as = "A.example"\n')).domain["b.example"].same_as, "a.example")
        below = '[domain."*.c.example"]\n[domain."b.example"]\nsame_as = "x.c.example"\n'
        self.assertEqual(with_more(below).domain["b.example"].same_as, "x.c.example")
        where = '8 domain."b.example".same_as: '
        self.assertEqual(
            self.fault(second('same_as = "a.exampel"\n')), where + "a.exampel is not among the domains; did you mean 'a.example'?"
        )
        self.assertEqual(len(faults(LEAST + second('same_as = "*.a.example"\n'))), 1)
        itself = where + "b.example is itself the same as another: name that one"
        self.assertEqual(self.fault(second('same_as = "b.example"\n')), itself)
        self.assertEqual(
            self.fault(second('same_as = "x.b.example"\n', name="*.b.example")),
            '8 domain."*.b.example".same_as: x.b.example is itself the same as another: name that one',
        )
        self.assertEqual(
            self.fault(second('same_as = "a.example"\nsubaddress = "-"\n')),
            '9 domain."b.example".subaddress: is without effect: with same_as, the names of a.example hold',
        )

    def test_names_without_a_domain_are_completed_by_one_that_has_names_of_its_own(self) -> None:
        first = '[domain."b.example"]\nsame_as = "a.example"\n[domain."a.example"]\n'
        self.assertEqual(with_more(first).home_domain, "a.example")
        own = first + f'[domain."{with_more(first).hostname}"]\nsame_as = "a.example"\n[domain."z.example"]\n'
        self.assertEqual(with_more(own).home_domain, "a.example")

    def test_a_domain_that_is_none_is_a_fault_at_its_table(self) -> None:
        self.assertIn('6 domain."exa mple": ', self.fault('[domain."exa mple"]\n'))

    def test_one_port_twice_is_a_fault(self) -> None:
        more = '[[listen]]\nservice = "submission"\nendpoint = "tcp:25"\n'
        self.assertEqual(self.fault(more), "8 listen[1].endpoint: is the endpoint of listen[0], too")
        self.assertIn("is the endpoint of listen[0], too", self.fault(more.replace("tcp:25", "haproxy:tcp:25")))

    def test_attributes_that_are_no_keys_cannot_be_set(self) -> None:
        self.assertIn("directory: is not a key", faults('directory = "/"\n' + LEAST)[0])
        self.assertEqual(with_more("[accounts]\noptions = 1\n").accounts.options, {"options": 1})

    def test_no_listener_at_all_is_a_fault(self) -> None:
        text = 'hostname = "mail.example.org"\ndata = "data"\nlisten = []\n'
        self.assertEqual(faults(text), ["3 listen: must have at least 1 of them"])

    def test_broken_toml_is_told_with_its_line(self) -> None:
        (fault,) = faults('hostname = "mail"\nlisten = [\n')
        self.assertRegex(fault, r"^[23] : is not valid TOML")
        (fault,) = faults("a = 1\nb = = 2\n")
        self.assertRegex(fault, "^2 : is not valid TOML")
        (fault,) = faults("a = 1\na = 2\n")
        self.assertRegex(fault, "^2 : is not valid TOML: cannot overwrite")


class FormerNames(SynchronousTestCase):
    def test_a_table_under_its_former_name_says_what_it_says_under_the_present_one(self) -> None:
        for table in ("[pickup]\n", "[drop]\n"):
            configuration = with_more(table + 'users = "all"\npath = "{data}/in"\ndomain = "b.example"\n')
            found = configuration.pickup.users, configuration.pickup_path, configuration.pickup.domain
            self.assertEqual(found, ("all", "/etc/mail/data/in", "b.example"), table)

    def test_mail_lies_where_it_lay(self) -> None:
        self.assertEqual([with_more(one).pickup_path for one in ("", "[drop]\n", "[pickup]\n")], ["/etc/mail/data/drop"] * 3)

    def test_both_names_are_a_fault_whichever_comes_first(self) -> None:
        words = "is the former name of pickup, which is there, too: keep one of them"
        self.assertEqual(faults(LEAST + "[pickup]\n[drop]\n"), [f"7 drop: {words}"])
        self.assertEqual(faults(LEAST + '[drop]\nusers = "all"\n[pickup]\n'), [f"6 drop: {words}"])

    def test_faults_are_told_under_the_name_that_the_file_has(self) -> None:
        for table in ("drop", "pickup"):
            self.assertEqual(
                faults(LEAST + f'[{table}]\nuser = "all"\nusers = "some"\n'),
                [
                    f"7 {table}.user: is not a key that is known here; did you mean 'users'?",
                    f'8 {table}.users: must be "owner", "all" or "group:" and a name',
                ],
            )
        self.assertEqual(faults("drop = 5\n" + LEAST), ["1 drop: must be a table"])


class Spam(Options):
    limit: Count = 3
    words: tuple[str, ...] = ()


class Inner(Options):
    colour: str = ""


class Outer(Options):
    inner: Inner | None = None


def options_of(section: str, name: str) -> type[Options]:
    if (section, name) == ("filter", "spam"):
        return Spam
    if section != "filter":
        return Options
    raise LookupError(f"there is no filter {name!r}")


class Components(SynchronousTestCase):
    def test_a_components_own_keys_become_its_options(self) -> None:
        configuration = parsed(LEAST + '[[filter]]\nuse = "spam"\nlimit = 5\nwords = ["a"]\n', options_of)
        self.assertEqual(configuration.filter[0].options, Spam(limit=5, words=("a",)))
        self.assertEqual(configuration.accounts.options, Options())

    def test_their_faults_have_lines_and_come_with_all_others(self) -> None:
        text = (
            LEAST
            + '[[filter]]\nuse = "spam"\n[[filter]]\nuse = "spam"\nlimit = 0\nservice = ["mx"]\nwords = [1]\n[lmits]\n'
        )
        self.assertEqual(
            faults(text, options_of),
            [
                "10 filter[1].limit: must be at least 1",
                "11 filter[1].service: is not a key that is known here; did you mean 'services'?",
                "12 filter[1].words[0]: must be text",
                "13 lmits: is not a key that is known here; did you mean 'limits'?",
            ],
        )

    def test_the_keys_of_a_table_that_may_be_missing_are_known_too(self) -> None:
        text = LEAST + '[[filter]]\nuse = "spam"\ninner = { color = "red" }\n'
        self.assertEqual(
            faults(text, lambda section, name: Outer if section == "filter" else Options),
            ["8 filter[0].inner.color: is not a key that is known here; did you mean 'colour'?"],
        )

    def test_an_unknown_component_is_told_at_its_use(self) -> None:
        self.assertEqual(
            faults(LEAST + '[[filter]]\nuse = "spm"\n', options_of), ["7 filter[0].use: there is no filter 'spm'"]
        )

    def test_keys_that_nobody_knows_in_a_built_in_relay_are_faults(self) -> None:
        self.assertEqual(
            faults(LEAST + '[relay]\nnetwork = ["::1"]\nhost = "x"\n', options_of),
            [
                "7 relay.network: is not a key that is known here; did you mean 'networks'?",
                "8 relay.host: is not a key that is known here",
            ],
        )


class Files(SynchronousTestCase):
    def write(self, content: bytes) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return str(path)

    def test_paths_count_from_the_folder_of_the_file(self) -> None:
        path = self.write(LEAST.encode())
        self.assertEqual(load(path).data, os.path.join(os.path.dirname(os.path.abspath(path)), "data"))

    def test_faults_name_the_file(self) -> None:
        path = self.write(LEAST.encode() + b"x = 1\n")
        with self.assertRaises(ConfigurationError) as caught:
            load(path)
        self.assertEqual(str(caught.exception), f"{path}:6: listen[0].x: is not a key that is known here")

    def test_a_file_that_is_not_there_is_a_fault(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "cannot be read: No such file"):
            load(self.mktemp())

    def test_a_file_in_another_encoding_is_a_fault(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, "is not UTF-8"):
            load(self.write(b'hostname = "m\xfcller"'))
