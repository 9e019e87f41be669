"""``mailserver import postfix``: five houses, the same routes as Postfix's own; nothing is dropped without a word."""

from __future__ import annotations

import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts import system_users
from mailserver.cli.route import _router
from mailserver.cli.without_server import finished
from mailserver.mail.address import Address
from mailserver.mail.answers import Local, Remote
from mailserver.moving.house import toml_of
from mailserver.moving.postfix import ReadHouse, read_postfix
from mailserver.moving.postfix_files import alias_members, expanded, main_lines
from mailserver.moving.postfix_source import PostfixSource
from mailserver.moving.reckoning import Reckoning
from mailserver.relay.route_facts import way_of
from tests.cli.support import Said, run
from tests.moving.postfix_houses import BACKUP, BIG, COMPANY, DEBIAN, HOUSES, MASTER, PostfixHouse, Trip, lay_out
from tests.requires import require_tool

USERS = [pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", "/bin/sh")) for name, uid in (("ute", 1000), ("max", 1001))]


ASK = PostfixSource._ask_postconf


def by_name(name: str) -> pwd.struct_passwd:
    return {one.pw_name: one for one in USERS}[name]


class Imported(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.data = self.root / "data"
        self.data.mkdir(mode=0o700)
        self.output = self.root / "mailserver.toml"
        table = system_users.UserTable(by_name, lambda: USERS)
        made = system_users.SystemDirectory.__init__
        self.patch(made, "__kwdefaults__", {**(made.__kwdefaults__ or {}), "users": table})
        self.patch(PostfixSource, "_ask_postconf", lambda source: None)  # a process for each would take its time

    def read(self, house: PostfixHouse, **more: Any) -> ReadHouse:
        if not (self.root / "etc").exists():
            lay_out(house, self.root)
        return read_postfix(str(self.root / "etc" / "postfix"), data=str(self.data), root=str(self.root), **more)

    def imported(self, house: PostfixHouse) -> Said:
        lay_out(house, self.root)
        return run("import", "postfix", "--root", str(self.root), "--output", str(self.output), "--data", str(self.data))

    def ends(self, trip: Trip, configuration: Any, router: Any) -> set[str]:
        """Where our own router and routes lead, in the words of a `Trip`."""
        found = set()
        for route in finished(router.route(Address.parse(trip.recipient))):
            if isinstance(route, Local):
                found.add(f"local {route.mailbox.user}@{route.mailbox.domain}")
            elif isinstance(route, Remote):
                way = way_of(configuration)(Address.parse(trip.sender) if trip.sender else None, route.address)
                host = way.get("host") or "mx"
                found.add("refused" if way["use"] == "none" else f"{host}:{way['port']} {route.address}")
            else:
                found.add("refused")
        return found


class Routes(Imported):
    def same_routes(self, house: PostfixHouse) -> None:
        said = self.imported(house)
        self.assertEqual((said.code, said.err), (1 if "could not" in said.out and " 0 could" not in said.out else 0, ""), said.out)
        configuration, router = _router(str(self.output))
        got = {(trip.sender, trip.recipient): self.ends(trip, configuration, router) for trip in house.trips}
        self.assertEqual(got, {(trip.sender, trip.recipient): set(trip.ends) for trip in house.trips})

    def test_a_small_company_has_the_routes_that_postfix_has(self) -> None:
        self.same_routes(HOUSES[0])

    def test_a_null_client_has_the_routes_that_postfix_has(self) -> None:
        self.same_routes(HOUSES[1])

    def test_a_second_exchanger_has_the_routes_that_postfix_has(self) -> None:
        self.same_routes(HOUSES[2])

    def test_a_debian_system_has_the_routes_that_postfix_has(self) -> None:
        self.same_routes(HOUSES[3])

    def test_a_big_house_has_the_routes_that_postfix_has(self) -> None:
        self.same_routes(HOUSES[4])

    def test_who_comes_first_is_as_with_postfix(self) -> None:
        self.same_routes(HOUSES[5])


class Files(Imported):
    def test_check_accepts_what_is_written_and_the_password_is_for_the_server_alone(self) -> None:
        self.imported(HOUSES[1])
        self.output.write_text(self.output.read_text().replace(":25", ":0"))  # a port that nobody has
        checked = run("check", "--config", str(self.output), "--json")
        self.assertEqual((checked.code, checked.json["faults"]), (0, []))
        secret = self.root / "smtp.provider.example.password"
        self.assertEqual((secret.read_text(), secret.stat().st_mode & 0o777), ("pass:with:colons\n", 0o600))
        self.assertNotIn("pass:with:colons", self.output.read_text())

    def test_nothing_is_written_over_and_nothing_is_made_where_the_data_folder_is_missing(self) -> None:
        self.imported(HOUSES[1])
        before = self.output.read_text()
        words = ("import", "postfix", "--root", str(self.root), "--output")
        said = run(*words, str(self.output), "--data", str(self.data))
        self.assertEqual((said.code, self.output.read_text()), (1, before))
        self.assertIn("exists already", said.err)
        said = run(*words, str(self.root / "other.toml"), "--data", str(self.root / "nowhere"))
        self.assertEqual((said.code, (self.root / "other.toml").exists()), (74, False))
        self.assertIn("is not there", said.err)

    def test_a_secret_of_another_time_is_not_written_over_and_one_of_a_run_cut_off_is_taken(self) -> None:
        secret = self.root / "smtp.provider.example.password"
        secret.write_text("another\n")
        self.assertIn("nothing was written over it", self.imported(HOUSES[1]).err)
        self.assertEqual((secret.read_text(), self.output.exists()), ("another\n", False))
        secret.write_text("pass:with:colons\n")
        words = ("import", "postfix", "--root", str(self.root), "--output", str(self.output), "--data", str(self.data))
        self.assertIn("is written", run(*words).out)

    def test_without_output_the_text_is_printed_with_the_list_and_json_has_all_of_it(self) -> None:
        lay_out(COMPANY, self.root)
        words = ("import", "postfix", "--root", str(self.root), "--data", str(self.data))
        said = run(*words)
        self.assertIn("#   header_checks = regexp:/etc/postfix/header_checks\n#       why: no patterns over headers", said.out)
        self.assertIn("could not be carried over", said.err)
        found = run(*words, "--json").json
        self.assertIn(found["configuration"], said.out)
        self.assertEqual([one["address"] for one in found["accounts"]][:2], ["alice@company.example", "bob@company.example"])

    def test_a_folder_without_main_cf_is_told(self) -> None:
        said = run("import", "postfix", str(self.root))
        self.assertEqual(said.code, 74)
        self.assertIn("main.cf", said.err)


class Account(Imported):
    """Each setting has an entry."""

    def test_every_parameter_and_every_service_is_carried_the_same_or_left(self) -> None:
        for house in HOUSES:
            with self.subTest(house.name):
                shutil.rmtree(self.root / "etc", ignore_errors=True)
                moved = self.read(house)
                for name in main_lines(house.main):
                    self.assertTrue(moved.reckoning.knows(name), name)
                self.assertTrue(moved.reckoning.knows("master.cf smtp/inet"))
                for one in moved.reckoning.of("left"):
                    self.assertTrue(one.why and one.todo, one)

    def test_what_is_left_is_told_by_name_value_and_reason(self) -> None:
        left = {one.name.rpartition("/")[2]: one for one in self.read(BIG).reckoning.of("left")}
        self.assertEqual(left["sender_bcc_maps"].value, "hash:/etc/postfix/bcc")
        self.assertIn("patterns have no equal", left["virtual_alias_maps"].why)
        self.assertIn("nothing leads to this host", left["passwords:3"].why)

    def test_without_postconf_the_same_is_read_and_with_it_a_name_that_postfix_does_not_know_is_told(self) -> None:
        require_tool("postconf")
        lay_out(BIG, self.root)
        with (self.root / "etc" / "postfix" / "main.cf").open("a") as file:
            file.write("message_size_limt = 1\nvirtual_alias_expansion_limit = 5\n")
        alone = self.read(BIG)
        self.patch(PostfixSource, "_ask_postconf", ASK)
        asked = self.read(BIG)
        self.assertEqual(toml_of(alone.house.tables), toml_of(asked.house.tables))
        left = {one.name: one for one in asked.reckoning.of("left")}
        self.assertIn("no such parameter", left["message_size_limt"].why)
        self.assertIn("nothing here has this name", left["virtual_alias_expansion_limit"].why)


class Odd(Imported):
    def changed(self, house: PostfixHouse, more: str = "", **files: str) -> ReadHouse:
        folder = lay_out(house, self.root)
        with (folder / "main.cf").open("a") as file:
            file.write(more)
        for name, text in files.items():
            with (folder / name).open("a") as file:
                file.write(text)
        return self.read(house)

    def left(self, moved: ReadHouse) -> str:
        return "\n".join(f"{one.name} = {one.value}: {one.why}" for one in moved.reckoning.of("left"))

    def test_an_account_behind_an_alias_or_a_catch_all_is_not_made_as_its_mail_would_go_elsewhere(self) -> None:
        moved = self.changed(COMPANY, virtual="alice@company.example bob@company.example\n@company.test carol@company.example\n")
        self.assertEqual(sorted(moved.house.accounts), ["bob@company.example", "carol@company.example", "max@localhost", "ute@localhost"])
        self.assertIn("alice@company.example: an alias takes its mail first", self.left(moved))
        self.assertIn("dave@company.test: the catch-all", self.left(moved))

    def test_a_user_of_the_host_whose_alias_does_not_keep_makes_accounts_of_them(self) -> None:
        folder = lay_out(DEBIAN, self.root)
        (folder.parent / "aliases").write_text("ute: ute@far.example\nroot: max\n")
        moved = self.read(DEBIAN)
        self.assertEqual((moved.house.tables["accounts"]["use"], list(moved.house.accounts)), ("file", ["max@debian.example"]))

    def test_aliases_that_lead_back_to_themselves_are_left_and_the_others_stand(self) -> None:
        moved = self.changed(COMPANY, virtual="a@company.example b@company.example\nb@company.example a@company.example\n")
        self.assertIn("leads back to itself", self.left(moved))
        self.assertIn("info", moved.house.tables["domain"]["company.example"]["aliases"])

    def test_a_list_of_members_that_names_itself_ends_and_a_list_in_a_list_is_told(self) -> None:
        folder = lay_out(DEBIAN, self.root)
        (folder.parent / "team").write_text("max\n:include:/etc/team\n")
        (folder.parent / "aliases").write_text("team: :include:/etc/team\nroot: max\n")
        moved = self.read(DEBIAN)
        self.assertEqual(moved.house.tables["domain"]["debian.example"]["aliases"]["team"], ["max@debian.example"])
        self.assertIn("team: :include:/etc/team: a list in the list", self.left(moved))

    def test_a_map_of_which_only_the_compiled_file_is_there_is_read_by_postmap(self) -> None:
        require_tool("postmap")
        folder = lay_out(BACKUP, self.root)
        (folder / "transport").write_text("only.example smtp:[host.example]\n")
        subprocess.run(["postmap", "-c", str(folder), f"hash:{folder}/transport"], check=True)
        (folder / "transport").unlink()
        routes = self.read(BACKUP).house.tables["route"]
        self.assertEqual([(one["domain"], one["host"]) for one in routes], [("only.example", "host.example")])

    def test_a_map_that_is_missing_is_told_and_the_rest_is_carried(self) -> None:
        folder = lay_out(COMPANY, self.root)
        (folder / "virtual").unlink()
        moved = self.read(COMPANY)
        self.assertIn("virtual cannot be read: No such file", self.left(moved))
        self.assertIn("alice@company.example", moved.house.accounts)

    def test_what_a_table_has_twice_counts_once_and_a_target_that_is_none_is_named(self) -> None:
        moved = self.changed(
            COMPANY, virtual="info@company.example eve@evil.example\nodd@company.example a b@@c.example\nx@far.example y@z.example\n"
        )
        aliases = moved.house.tables["domain"]["company.example"]["aliases"]
        self.assertEqual(aliases["info"], ["alice@company.example", "bob@company.example"])
        self.assertEqual(aliases["odd"], ["a@company.example"])
        self.assertIn("the key is there twice", self.left(moved))
        self.assertIn("odd@company.example b@@c.example", self.left(moved))
        self.assertIn("it sends mail for others' addresses elsewhere", self.left(moved))

    def test_a_transport_for_all_mail_is_the_relay_and_its_domains_are_sent_on(self) -> None:
        moved = self.changed(COMPANY, "transport_maps = inline:{ *=smtp:[gate.example]:26, company.test=virtual: }\n")
        relay = moved.house.tables["relay"]
        self.assertEqual((relay["use"], relay["host"], relay["port"]), ("smarthost", "gate.example", 26))
        self.assertEqual(relay["domains"], ["localhost", "company.example"])

    def test_a_password_that_is_not_utf8_is_kept_octet_by_octet_and_text_that_is_none_is_told(self) -> None:
        folder = lay_out(HOUSES[1], self.root)
        (folder / "sasl_passwd").write_bytes(b"[smtp.provider.example]:587 w\xe9b:p\xe4ss\n")
        said = run("import", "postfix", "--root", str(self.root), "--output", str(self.output), "--data", str(self.data))
        self.assertIn("is not UTF-8", said.out)
        self.assertEqual((self.root / "smtp.provider.example.password").read_bytes(), b"p\xe4ss\n")
        self.assertIn("username = \"w\ufffdb\"", self.output.read_text())

    def test_text_of_a_table_cannot_become_a_key_of_the_configuration(self) -> None:
        moved = self.changed(COMPANY, virtual='"quo\\"te]x"@company.example alice@company.example\n')
        text = toml_of(moved.house.tables)
        self.output.write_text(text)
        import tomllib

        self.assertEqual(tomllib.loads(text)["hostname"], "mail.company.example")


class Relaying(Imported):
    """Nobody may relay here who may not there, and the Internet never."""

    def entries(self, main: str, master: str = "") -> tuple[ReadHouse, dict[str, str]]:
        shutil.rmtree(self.root / "etc", ignore_errors=True)
        head = "myhostname = mail.example.org\nmydestination = example.org\nmyorigin = example.org\n"
        found = self.read(PostfixHouse("", head + main, (), master=MASTER + master))
        return found, {one.name: one.kind for one in found.reckoning}

    def networks(self, main: str) -> list[str]:
        networks: list[str] = self.entries(main)[0].house.tables["relay"]["networks"]
        return networks

    def test_networks_may_relay_only_where_the_rules_permit_them_before_they_refuse(self) -> None:
        for rules, may in {
            "": True,
            "smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination\n": False,
            "smtpd_relay_restrictions = reject_unauth_destination permit_mynetworks\n": False,
            "smtpd_relay_restrictions = permit_sasl_authenticated, permit_mynetworks, reject\n": True,
            "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination\n": True,
            "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = reject_unauth_destination, permit\n": False,
            "smtpd_recipient_restrictions = warn_if_reject reject, permit_mynetworks\n": True,
        }.items():
            with self.subTest(rules):
                self.assertEqual(self.networks(f"mynetworks = 10.0.0.0/8\n{rules}"), ["10.0.0.0/8"] if may else [])

    def test_the_whole_internet_is_left_out_and_told(self) -> None:
        for wide in ("0.0.0.0/0", "[::]/0", "0.0.0.0/1", "2000::/3", "0.0.0.0/0.0.0.0"):
            with self.subTest(wide):
                found, _ = self.entries(f"mynetworks = 127.0.0.0/8 {wide} [fe80::]/10\n")
                self.assertEqual(found.house.tables["relay"]["networks"], ["127.0.0.0/8", "fe80::/10"])
                why = next(one.why for one in found.reckoning.of("left") if one.name == "mynetworks")
                self.assertIn("open to the Internet", why)

    def test_what_an_exclamation_mark_takes_out_may_not_relay(self) -> None:
        self.assertEqual(
            self.networks("mynetworks = !10.0.0.0/9, !192.0.2.7, 10.0.0.0/8, 192.0.2.7, ::1/128\n"), ["10.128.0.0/9", "::1/128"]
        )
        self.assertEqual(self.networks("mynetworks = ::1/128, !/nowhere, 10.0.0.0/8\n"), ["::1/128"])

    def test_options_of_one_listener_that_are_not_carried_over_are_told(self) -> None:
        service = "submission inet n - n - - smtpd\n"
        options = {
            "smtpd_tls_cert_file": "/other.pem", "smtpd_tls_mandatory_ciphers": "high",
            "smtpd_sender_restrictions": "check_sender_access,hash:/x", "smtpd_client_restrictions": "reject_rbl_client,x.example",
        }  # fmt: skip
        _, kinds = self.entries("", service + "".join(f"  -o {key}={value}\n" for key, value in options.items()))
        self.assertEqual({key: kinds.get(f"master.cf submission/inet: {key}") for key in options}, dict.fromkeys(options, "left"))
        usual = "  -o smtpd_sasl_auth_enable=yes\n  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n"
        found, kinds = self.entries("", f"{service}{usual}  -o smtpd_sender_restrictions=reject_sender_login_mismatch\n")
        self.assertEqual([name for name in kinds if name.startswith("master.cf submission/inet: ")], [])
        self.assertNotEqual(found.house.tables.get("submission", {}).get("senders"), "any")

    def test_passwords_in_main_cf_are_not_listed(self) -> None:
        found, _ = self.entries(
            "relayhost = [smtp.x.example]\nsmtp_sasl_auth_enable = yes\ndb_password = SECRET\nldap_bind_pw = SECRET\n"
            "smtp_sasl_password_maps = inline:{ {a.example=al:SECRET}, {[smtp.x.example]=al:SECRET} } static:al:SECRET\n",
            "slow unix - - n - 1 smtp -o smtp_sasl_password_maps=static:al:SECRET\n",
        )
        self.assertNotIn("SECRET", repr(list(found.reckoning)))
        self.assertEqual(found.house.secrets, {"smtp.x.example.password": "SECRET"})

    def test_an_authority_of_ones_own_and_the_domain_of_log_ins_are_listed(self) -> None:
        _, kinds = self.entries("smtp_tls_CAfile = /etc/own-ca.pem\nsmtpd_sasl_local_domain = example.com\n")
        self.assertEqual((kinds["smtp_tls_CAfile"], kinds["smtpd_sasl_local_domain"]), ("left", "left"))
        self.assertEqual(self.entries("smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt\n")[1]["smtp_tls_CAfile"], "same")

    def test_values_that_refer_to_each_other_without_end_take_a_moment(self) -> None:
        many = "".join(f"a{n} = $a{n + 1}$a{n + 1}$a{n + 1}$a{n + 1}\n" for n in range(29))
        for end in ("", "x", "$a0"):
            self.entries(f"{many}a29 = {end}\nrelayhost = $a0\nmynetworks = $a0\n")
        found, _ = self.entries(f"smtpd_recipient_restrictions = {'x' * 500_000}\n")
        self.assertLess(max(len(one.name) for one in found.reckoning), 400)


class Text(SynchronousTestCase):
    def test_parameters_are_put_in_as_postconf_does(self) -> None:
        values = {"a": "1", "b": "$a 2", "empty": "", "level": "3.6", "loop": "$loop"}
        for text, wanted in {
            "$a": "1", "$(a)x": "1x", "${a}x": "1x", "$b": "1 2", "$none.": ".", "$$a": "$a", "${a?yes}": "yes", "${empty?yes}": "",
            "${empty:no}": "no", "${a:no}": "", "${a?{y z}:{n}}": "y z", "${none?{y}:{n $a}}": "n 1",
            "${{$a} == {1} ? {same} : {other}}": "same", "${{$level} <level {2} ? {old} : {}}": "", "${{$level} >= {3.6}?{new}}": "new",
        }.items():  # fmt: skip
            self.assertEqual(expanded(text, values.get), wanted, text)
        expanded("$loop", values.get)  # ends

    def test_members_of_aliases_keep_their_quotes_and_commas(self) -> None:
        self.assertEqual(alias_members('a, "|cmd x, y" , "b c"@d.example,/f'), ["a", "|cmd x, y", '"b c"@d.example', "/f"])

    def test_the_ledger_knows_a_setting_by_a_line_of_it(self) -> None:
        reckoning = Reckoning()
        reckoning.left("maps: /x:3", "long " * 100, "why", "do")
        self.assertTrue(reckoning.knows("maps"))
        self.assertEqual(len(reckoning.of("left")[0].value), 200)
