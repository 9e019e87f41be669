"""``mailserver check``: what it finds and where it says that it is."""

from __future__ import annotations

import os
import socket

from tests.cli.support import CONFIGURATION, CommandCase, Said


class Check(CommandCase):
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

    def test_a_good_configuration_has_no_faults(self) -> None:
        said = self.check()
        self.assertEqual((said.code, said.out), (0, f"{self.config}: no faults, no warnings.\n"))

    def test_every_fault_of_the_file_is_printed(self) -> None:
        said = self.check('[limits]\nrecipients = 1\n[[filter]]\nuse = "denylst"\n[log]\nlevel = "loud"\n')
        self.assertFault(said, 10, "limits.recipients: must be at least 100")
        self.assertFault(said, 12, "filter[0].use: there is no filter component 'denylst'; known: denylist")
        self.assertFault(said, 14, "log.level: must be one of: debug, info, warn, error")
        self.assertIn(": 3 faults, no warnings.\n", said.out)

    def test_faults_as_json(self) -> None:
        self.configure(CONFIGURATION + "x = 1\n")
        found = self.command("check", "--json").json
        self.assertEqual([(fault["line"], fault["key"]) for fault in found["faults"]], [(9, 'domain."example.org".x')])
        self.assertEqual(found["warnings"], [])

    def test_aliases_that_go_round_are_a_fault_at_their_domain(self) -> None:
        said = self.check('[domain."example.org".aliases]\na = "b@example.org"\nb = "a@example.org"\n')
        self.assertFault(said, 9, 'domain."example.org".aliases: ')
        self.assertIn("leads back to itself", said.out)

    def test_an_alias_to_nobody_is_a_warning(self) -> None:
        said = self.check('[domain."example.org".aliases]\nsales = "ghost@example.org"\n')
        self.assertEqual(said.code, 0)
        self.assertIn("warning: alias sales@example.org", said.out)

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
        self.assertFault(self.check(), 6, f"accounts: {self.accounts}: No such file or directory")

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

    def test_the_check_leaves_nothing_behind(self) -> None:
        self.check()
        self.assertEqual(os.listdir(self.data), [])
