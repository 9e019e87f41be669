"""``mailserver srs``, and what `check` and `route` say of return paths."""

from __future__ import annotations

import json
import os
import time

from mailserver.mail.address import Address
from mailserver.trust.srs import ReturnPathKeys
from mailserver.trust.srs_keys import current_keys, read_srs_keys
from tests.cli.support import CONFIGURATION, CommandCase
from tests.requires import require_root

RELAY = '[relay]\nuse = "mx"\n[domain."example.org".aliases]\nsales = ["ann@far.example"]\n'


class SRS(CommandCase):
    """Keys on the disk, without a server."""

    def setUp(self) -> None:
        """No key yet."""
        super().setUp()
        self.keys = f"{self.data}-keys"
        self.accounts.write_text('[account."alice@example.org"]\n')

    def test_keys_are_made_listed_and_forgotten(self) -> None:
        self.assertIn("there is no key yet", self.command("srs", "keys").out)
        self.assertEqual([self.command("srs", "rotate").code for _ in range(2)], [0, 0])
        listed = json.loads(self.command("srs", "keys", "--json").out)
        self.assertEqual([one["makes"] for one in listed], [True, False])
        self.assertIn("is understood", self.command("srs", "keys").out)
        said = self.command("srs", "rotate", "--forget")
        self.assertEqual(said.out.count("is removed"), 2)
        [(name, key)] = read_srs_keys(self.keys)
        self.assertIn(name, said.out)
        self.assertNotIn(key.hex(), said.out)

    def test_route_says_where_a_return_path_leads_and_why_one_leads_nowhere(self) -> None:
        keys = ReturnPathKeys(current_keys(self.keys, time.time()))
        today = int(time.time() // 86_400)
        path = keys.made(Address("bob", "far.example"), "example.org", today)
        self.configure(CONFIGURATION + RELAY)
        said = self.command("route", str(path))
        self.assertIn(f"{path} is the return path of bob@far.example", said.out)
        self.assertIn("→ bob@far.example, by ", said.out)
        old = keys.made(Address("bob", "far.example"), "example.org", today - 30)
        self.assertIn("has expired", self.command("route", str(old)).out)
        token = keys.for_token("a" * 20, "example.org", today)
        self.assertIn("the sender is not kept any more", self.command("route", str(token)).out)

    def test_check_tells_of_keys_that_cannot_be_read_or_made_where_an_alias_leaves(self) -> None:
        self.configure(CONFIGURATION + RELAY)
        self.assertIn("no [[filter]] with use", self.command("check").out)
        self.assertNotIn("forward.srs", self.command("check").out)
        os.makedirs(os.path.join(self.keys, "srs"))
        with open(os.path.join(self.keys, "srs", "20261130T000000Z.key"), "w", encoding="ascii") as file:
            file.write("no key")
        self.assertIn("forward.srs: mail that aliases send on waits: ", self.command("check").out)
        self.configure(CONFIGURATION + RELAY + "[forward]\nsrs = false\n")
        self.assertNotIn("forward.srs", self.command("check").out)

    def test_check_tells_where_the_servers_user_could_not_make_the_key(self) -> None:
        require_root("a folder of another user")
        os.chmod(self.folder, 0o755)
        os.chown(self.data, 65534, 65534)
        os.makedirs(self.keys, 0o700)
        self.configure(CONFIGURATION + RELAY)
        self.assertIn("forward.srs: mail that aliases send on waits: ", self.command("check").out)
        os.rmdir(self.keys)
        os.chmod(self.folder, 0o700 | 0o055)
        self.assertIn(f"no key can be made below {self.folder}", self.command("check").out)

    def test_check_tells_of_secrets_that_are_not_there_and_of_a_domain_that_is_not_ours(self) -> None:
        self.configure(CONFIGURATION + f'[forward]\nformer_secrets = "{self.folder}/nothing"\n')
        self.assertIn("forward.former_secrets: mail that aliases send on waits: ", self.command("check").out)
        self.configure(CONFIGURATION + '[forward]\ndomain = "far.example"\n')
        said = self.command("check")
        self.assertEqual(said.code, 1)
        self.assertIn("forward.domain: bounces would not come here: far.example", said.out)
