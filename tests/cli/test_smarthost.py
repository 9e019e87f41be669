"""``mailserver smarthost``: the three ways to a first token, what goes wrong in them, and what is said of the token."""

from __future__ import annotations

import io
import os
import stat
import time
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

from mailserver.cli import smarthost
from mailserver.config import load
from mailserver.plugins.catalogue import discover
from mailserver.relay.route_maker import token_file, token_hops
from mailserver.relay.token_answers import IssuedTokens
from tests.cli.support import CONFIGURATION, CommandCase, Said
from tests.relay.issuer import MockIssuer, reactor


class SmarthostCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.mock = MockIssuer()
        self.addCleanup(self.stop)
        self.secret = self.folder / "secret"
        self.secret.write_text("s3cret\n")
        self.secret.chmod(0o600)
        self.configure_flow("device")

    def stop(self) -> None:
        self.mock.stop()
        for _ in range(3):
            reactor.iterate(0.01)

    def configure_flow(self, flow: str, more: str = "") -> None:
        self.configure(CONFIGURATION + f"""
[relay]
use = "smarthost"
host = "smtp.example"
tls = "verified"
username = "us@example.org"
oauth = "{self.mock.url}"
oauth_client = "our-id"
oauth_secret_file = "secret"
oauth_scopes = ["mail.send"]
oauth_flow = "{flow}"
{more}""")

    def file(self) -> Any:
        configuration = load(str(self.config), discover().options_of)
        return token_file(configuration.relay.options, configuration.keys_path, configuration.relay.options)

    def kept(self) -> IssuedTokens:
        tokens: IssuedTokens = self.file().read()[1]
        return tokens

    def keep(self, **more: Any) -> None:
        self.file().write(IssuedTokens(**{"access": "token-9", "lifetime": 3600.0, "obtained_at": time.time(), "refresh": "refresh-9", **more}))

    def login(self, stdin: str = "") -> Said:
        return self.command("smarthost", "login", stdin=stdin)


class Login(SmarthostCase):
    def test_log_ins_of_routes_have_files_of_their_own_and_are_chosen_by_their_user(self) -> None:
        route = '[[route]]\nsender = "{0}"\nhost = "smtp.example"\ntls = "verified"\nusername = "{0}"\noauth = "{1}"\n'
        route += 'oauth_client = "our-id"\noauth_secret_file = "secret"\noauth_scopes = ["mail.send"]\noauth_flow = "client"\n'
        users = ("alice@example.org", "us@example.org")
        self.configure_flow("client", "".join(route.format(user, self.mock.url) for user in users))
        self.assertIn("name one with --user: alice@example.org, us@example.org", self.command("smarthost", "login").err)
        self.assertIn("nobody logs in as eve: ", self.command("smarthost", "status", "--user", "eve").err)
        for user in users:
            said = self.command("smarthost", "login", "--user", user)
            self.assertIn(f"there is a token for {user} at smtp.example", said.out, said.err)
        configuration = load(str(self.config), discover().options_of)
        (us, first), (alice, second) = token_hops(configuration)
        self.assertEqual((us.username, alice.username), ("us@example.org", "alice@example.org"))
        self.assertEqual(os.path.basename(first.path), "smarthost.token")
        self.assertRegex(os.path.basename(second.path), r"^smarthost-[0-9a-f]{16}\.token$")
        self.assertNotEqual(first.read()[1].access, second.read()[1].access)

    def test_a_device_is_asked_about_until_somebody_has_agreed(self) -> None:
        good = (200, {"access_token": "token-1", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "refresh-1"})
        self.mock.answers = [(400, {"error": "authorization_pending"}), (503, b""), good]
        with mock.patch.object(smarthost, "deferLater", lambda reactor, seconds: smarthost_pause(seconds)):
            said = self.login()
        self.assertEqual((said.code, said.err), (0, ""))
        self.assertIn("Open  https://issuer.example/device  on any device, enter the code  ABCD-EFGH", said.out)
        self.assertIn("there is a token for us@example.org at smtp.example, good for 1h", said.out)
        self.assertIn("the server gets the next ones by itself", said.out)
        self.assertNotIn("token-1", said.out)
        self.assertEqual((self.kept().access, self.kept().refresh), ("token-1", "refresh-1"))
        self.assertEqual(stat.S_IMODE(os.stat(self.file().path).st_mode), 0o400)
        self.assertEqual(self.mock.asked[-1]["device_code"], "device-1")

    def test_whoever_does_not_agree_gets_none(self) -> None:
        self.mock.answers = [(400, {"error": "access_denied"})]
        with mock.patch.object(smarthost, "deferLater", lambda reactor, seconds: smarthost_pause(seconds)):
            said = self.login()
        self.assertEqual((said.code, said.err), (1, "mailserver: the issuer refuses: access_denied\n"))
        self.assertFalse(os.path.exists(self.file().path))

    def test_a_client_asks_for_itself(self) -> None:
        self.configure_flow("client")
        self.assertIn("the server gets the next ones by itself", self.login().out)
        self.assertEqual(self.mock.asked[0]["grant_type"], "client_credentials")
        self.assertEqual(self.kept().access, "token-1")

    def by_code(self, answer: str) -> Said:
        """The person's browser: `answer` is what stands behind the state."""
        self.configure_flow("code")
        out = io.StringIO()

        class Person(io.StringIO):
            def readline(self, *_: Any) -> str:
                [self.shown] = [line for line in out.getvalue().splitlines() if line.startswith("http")]
                state = parse_qs(urlsplit(self.shown).query)["state"][0]
                return f"http://localhost/?state={state}&{answer}\n"

        self.person = Person()
        with mock.patch.object(smarthost.sys, "stdin", self.person), mock.patch.object(smarthost, "say", lambda *lines: out.write("\n".join(lines) + "\n")):
            return self.login_with(self.person)

    def login_with(self, stdin: Any) -> Said:
        with mock.patch("tests.cli.support.io.StringIO", side_effect=[io.StringIO(), io.StringIO(), stdin]):
            return self.login()

    def test_a_browser_is_sent_back_with_a_code(self) -> None:
        self.assertEqual(self.by_code("code=code-1").code, 0)
        asked = parse_qs(urlsplit(self.person.shown).query)
        self.assertEqual((asked["client_id"], asked["code_challenge_method"], asked["scope"]), (["our-id"], ["S256"], ["mail.send"]))
        self.assertEqual((self.mock.asked[0]["grant_type"], self.mock.asked[0]["code"]), ("authorization_code", "code-1"))
        self.assertEqual(self.mock.asked[0]["redirect_uri"], "http://localhost")
        self.assertEqual(self.kept().access, "token-1")

    def test_an_address_of_somebody_else_is_not_believed(self) -> None:
        self.configure_flow("code")
        said = self.login("http://localhost/?state=other&code=x\n")
        self.assertEqual((said.code, self.mock.asked), (1, []))
        self.assertIn("no address that belongs to the one above", said.err)
        self.assertEqual(self.by_code("error=access_denied").err, "mailserver: the issuer refuses: access_denied\n")

    def test_an_issuer_that_is_not_there_is_told(self) -> None:
        self.stop()
        said = self.login()
        self.assertEqual(said.code, 1)
        self.assertIn("127.0.0.1 gives no answer", said.err)

    def test_without_oauth_there_is_nothing_to_do(self) -> None:
        self.configure(CONFIGURATION)
        for action in ("login", "status"):
            said = self.command("smarthost", action)
            self.assertEqual(said.code, 1)
            self.assertIn('no [relay] with use = "smarthost" and oauth', said.err)


class Doubts(SmarthostCase):
    def told(self) -> str:
        """What `check` and `smarthost status` say, which is the same."""
        status = self.command("smarthost", "status", "--json").json
        self.assertNotIn("token-9", str(status))
        warnings = [one for one in self.command("check", "--json").json["warnings"] if one.startswith("relay.oauth")]
        self.assertEqual(warnings, status["doubts"])
        return "\n".join(warnings)

    def test_a_token_that_is_missing_expired_or_about_to_be_is_told(self) -> None:
        self.assertIn("there is no token yet", self.told())
        self.assertEqual(self.command("smarthost", "status").code, 1)
        self.keep()
        self.assertEqual(self.told(), "")
        self.assertEqual(self.command("smarthost", "status").code, 0)
        self.keep(refresh="")
        self.assertIn("the token ends in 59m 59s, and there is no refresh token", self.told())
        self.keep(refresh="", obtained_at=time.time() - 4000)
        self.assertIn("the token has ended, and there is no refresh token", self.told())
        self.assertEqual(self.command("smarthost", "status").code, 1)
        self.keep(refresh_lifetime=90 * 86_400.0, refresh_at=time.time() - 85 * 86_400)
        self.assertIn("the refresh token ends in 4d 23h", self.told())
        self.keep(obtained_at=time.time() - 3 * 86_400)
        self.assertIn("and no server has got a new one", self.told())
        self.configure(self.config.read_text().replace('"our-id"', '"another"'))
        warnings = self.command("check", "--json").json["warnings"]
        self.assertTrue([one for one in warnings if "is of another log-in" in one], warnings)
        self.assertEqual(self.command("smarthost", "status").code, 74)

    def test_a_client_needs_no_token_before(self) -> None:
        self.configure_flow("client")
        self.assertEqual(self.told(), "")
        self.assertEqual(self.command("smarthost", "status").code, 0)

    def test_a_secret_that_is_missing_or_open_to_all_is_told(self) -> None:
        self.secret.chmod(0o644)
        self.assertTrue([one for one in self.command("check", "--json").json["warnings"] if one.startswith("relay.oauth_secret_file")])
        self.secret.unlink()
        self.assertIn("relay.oauth_secret_file", self.command("check").out)
        self.assertEqual(self.command("check").code, 1)


def smarthost_pause(seconds: float) -> Any:
    """A moment in the place of `seconds`."""
    from twisted.internet.task import deferLater

    return deferLater(reactor, 0.001)
