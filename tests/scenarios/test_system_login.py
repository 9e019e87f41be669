"""Users of the host log in to the whole server with their passwords of the host."""

from __future__ import annotations

import smtplib
from typing import Any

from mailserver.control.server import CommandRefused, ask
from tests.authentication.pam_service import PamService
from tests.scenarios.support import Server
from tests.scenarios.test_login import SUBMISSION, LoginCase

FILE = 'use = "file"\npath = "{work}/accounts.toml"\n'
SYSTEM = 'use = "system"\ndomains = ["example.org"]\nuid_min = 1\nuid_max = 70000\npam = "%s"\n'
USER = "nobody@example.org"


class SystemLogin(LoginCase):
    def code(self, server: Server, password: str) -> int:
        with self.client(server) as client:
            try:
                return client.login(USER, password)[0]
            except smtplib.SMTPAuthenticationError as error:
                return error.smtp_code

    def reload(self, server: Server) -> Any:
        return ask(str(server.work / "data" / "control.sock"), "reload", timeout_seconds=20)

    def test_passwords_of_the_host_are_good_and_stay_so_over_a_reload(self) -> None:
        server = self.with_password()
        service = PamService(server.work, {"nobody": "secret"})
        self.addCleanup(service.remove)
        server.configure(SUBMISSION.replace(FILE, SYSTEM % service.name))
        refused = self.assertRaises(CommandRefused, self.reload, server)
        self.assertIn("this change needs a restart", str(refused))
        server.stop()
        self.assertEqual(server.command("check").returncode, 0)
        server.restart()
        self.assertEqual([self.code(server, "secret"), self.code(server, "Secret")], [235, 535])
        self.assertEqual(self.reload(server)["needs_restart"], [])
        self.assertEqual([self.code(server, "secret"), self.code(server, "Secret")], [235, 535])
        server.configure(SUBMISSION)
        self.assertEqual(self.reload(server)["needs_restart"], ["accounts"])
        self.assertEqual([self.code(server, "secret"), self.code(server, "Secret")], [235, 535])
        self.assertEqual(server.stop(), 0)

    def test_a_service_that_is_not_there_stops_the_start(self) -> None:
        server = self.prepare(SUBMISSION.replace(FILE, SYSTEM % "no-such-service"))
        said = server.command("check")
        self.assertEqual(said.returncode, 1)
        self.assertIn("there is no PAM service no-such-service", said.stdout)
