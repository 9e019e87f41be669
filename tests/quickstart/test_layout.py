"""Owners, modes, unit and system user: the same as the package's and the documents'."""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import parse
from mailserver.config.choice import INSTALLED
from mailserver.plugins.catalogue import discover
from mailserver.quickstart import plan
from mailserver.quickstart.configuration_text import configuration_text, is_the_sample, sample
from mailserver.quickstart.own_steps import SystemUserStep
from mailserver.quickstart.system_files import UNIT_NAME, WEB_UNIT_NAME, account_line, unit_text, web_unit_text
from mailserver.quickstart.told import next_commands
from mailserver.quickstart.wishes import SYSTEM_DATA, HouseWishes, default_places
from tests.quickstart.support import HouseCase, seen_of
from tests.rfc_index import ROOT

HOUSE = HouseWishes(
    address="you@example.org", domain="example.org", hostname="mail.example.org", config=INSTALLED, data=SYSTEM_DATA,
    keys=f"{SYSTEM_DATA}-keys", user="mailserver",
)  # fmt: skip


class OneSource(SynchronousTestCase):
    def test_folders_have_the_modes_of_the_package_and_of_the_documents(self) -> None:
        installed = re.compile(r"install -d -o (\S+) -g \S+ -m (\d+) (/var/lib/\S+)(?: (/var/lib/\S+))?")
        package = {one[3]: (one[1], int(one[2], 8)) for one in installed.finditer((ROOT / "debian/mailserver.postinst").read_text())}
        self.assertEqual(package, {
            SYSTEM_DATA: ("mailserver", plan.OPEN_DATA_MODE), f"{SYSTEM_DATA}-keys": ("mailserver", plan.KEYS_MODE),
        })  # fmt: skip
        found = installed.search((ROOT / "docs/operating.md").read_text())
        assert found is not None
        self.assertEqual((found[1], int(found[2], 8), found[3], found[4]), ("mailserver", plan.DATA_MODE, SYSTEM_DATA, f"{SYSTEM_DATA}-keys"))
        self.assertEqual(plan.DATA_MODE, plan.KEYS_MODE)

    def test_unit_sample_and_user_are_those_of_etc(self) -> None:
        self.assertEqual(sample(), (ROOT / "etc/mailserver.toml").read_text())
        self.assertTrue(is_the_sample(sample()))
        self.assertFalse(is_the_sample(sample() + "#"))
        self.assertIn(account_line(), (ROOT / "etc/sysusers.conf").read_text())
        unit = unit_text(HOUSE, "/opt/mailserver/bin/twistd")
        ours = (ROOT / "etc" / UNIT_NAME).read_text()
        self.assertEqual(unit.splitlines()[1:], ours.splitlines()[1:])
        self.assertEqual(web_unit_text("/opt/mailserver/bin/twistd"), (ROOT / "etc" / WEB_UNIT_NAME).read_text())
        self.assertIn("ExecStart=/usr/lib/m/bin/python -P", web_unit_text("/usr/lib/m/bin/twistd"))

    def test_other_folders_are_writable_in_the_unit(self) -> None:
        house = HouseWishes(**(HOUSE.plain | {"data": "/srv/my mail", "keys": "/srv/100%", "ports": HOUSE.ports, "addresses": ()}))
        unit = unit_text(house, "/usr/lib/mailserver/bin/twistd")
        self.assertIn("ReadWritePaths='/srv/my mail' /srv/100%%\n", unit)
        self.assertIn("WorkingDirectory=/srv/my mail\n", unit)
        self.assertNotIn("StateDirectory=", unit)
        self.assertIn("ExecStart=/usr/lib/mailserver/bin/twistd -n mailserver --config /etc/mailserver/mailserver.toml\n", unit)

    def test_the_configuration_of_the_system_is_understood(self) -> None:
        found = parse(configuration_text(HOUSE), file=INSTALLED, directory="/etc/mailserver", options_of=discover().options_of)
        self.assertEqual((found.data, found.keys_path), (SYSTEM_DATA, f"{SYSTEM_DATA}-keys"))
        self.assertGreaterEqual(
            {(str(one.service), one.endpoint) for one in found.listen},
            {("mx", "tcp6:25"), ("submission", "tcp6:465"), ("submission", "tcp6:587"), ("metrics", "tcp:9154:interface=127.0.0.1")},
        )
        self.assertGreaterEqual({one.use for one in found.filter}, {"spf", "dkim", "dmarc", "dkim_signing", "dmarc_reports", "tls_reports"})

    def test_root_has_the_systems_places_and_others_their_own(self) -> None:
        self.assertEqual(default_places(0, "/root"), (INSTALLED, SYSTEM_DATA, "mailserver"))
        self.assertEqual(
            default_places(1000, "/home/you"), ("/home/you/.config/mailserver/mailserver.toml", "/home/you/.local/share/mailserver", "")
        )


class AsTheSystem(HouseCase):
    """The user that the server runs as is the one of this test; what programs of the host are told is only noted."""

    def setUp(self) -> None:
        super().setUp()
        import pwd

        self.me = pwd.getpwuid(os.geteuid()).pw_name
        places = self.folder / "systemd", self.folder / "usr-systemd"
        for one in places:
            one.mkdir()
        self.host = plan.QuickHost(
            uid=0, home=str(self.folder), twistd="/opt/mailserver/bin/twistd", program="mailserver", has_systemd=True, systemd_runs=True,
            has_ipv6=True, run=self.ran.append, unit_places=tuple(map(str, places)),
        )  # fmt: skip
        self.patch(plan.SystemUserStep, "is_there", lambda step: True)
        from mailserver.quickstart import wishes

        self.patch(wishes, "SYSTEM_USER", self.me)

    def test_the_unit_is_put_told_of_enabled_and_taken_away(self) -> None:
        said = self.made("--start")
        unit = self.folder / "systemd" / UNIT_NAME
        self.assertIn(f"--config {self.config}\n", unit.read_text())
        self.assertIn(f"ReadWritePaths={self.data} {self.data}-keys", unit.read_text())
        self.assertEqual(self.ran, [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", "mailserver"]])
        self.assertIn("systemctl enable --now mailserver", said.out)
        self.undone()
        self.assertIn(["systemctl", "disable", "--quiet", "--now", UNIT_NAME], self.ran)
        self.assertIn(["systemctl", "disable", "--quiet", UNIT_NAME], self.ran)
        self.assertFalse(unit.exists())

    def test_the_web_process_is_a_unit_of_its_own_where_systemd_runs(self) -> None:
        self.host = plan.QuickHost(**{name: getattr(self.host, name) for name in plan.QuickHost.__slots__} | {"has_web_unit": True})
        said = self.made()
        self.assertIn('socket_group = "mailserver-web-socket"', self.config.read_text())
        self.assertTrue((self.folder / "systemd" / WEB_UNIT_NAME).exists())
        self.assertIn("systemctl enable --now mailserver mailserver-web", said.out)
        before = seen_of(self.folder)
        self.made()
        self.assertEqual(seen_of(self.folder), before)
        self.undone()
        self.assertFalse((self.folder / "systemd" / WEB_UNIT_NAME).exists())

    def test_a_unit_that_starts_something_else_is_left_alone(self) -> None:
        unit = self.folder / "systemd" / UNIT_NAME
        unit.write_text("[Service]\nExecStart=/bin/true\n")
        said = self.quickstart("you@example.org", "--data", str(self.data), "--yes")
        self.assertEqual(said.code, 1)
        self.assertIn("starts something else", said.err)
        self.assertFalse(self.config.exists())

    def test_the_packages_unit_is_enough(self) -> None:
        unit = self.folder / "usr-systemd" / UNIT_NAME
        unit.write_text(f"[Service]\nExecStart=/opt/mailserver/bin/twistd -n mailserver --config {self.config}\n")
        self.made()
        self.assertFalse((self.folder / "systemd" / UNIT_NAME).exists())

    def test_a_start_that_fails_takes_nothing_back(self) -> None:
        def run(words: list[str]) -> None:
            if "enable" in words:
                raise OSError(5, "ended with 1: no", "systemctl")

        self.host = plan.QuickHost(**{name: getattr(self.host, name) for name in plan.QuickHost.__slots__} | {"run": run})
        said = self.quickstart("you@example.org", "--data", str(self.data), "--hostname", "mail.example.org", "--yes", "--start")
        self.assertEqual(said.code, 1)
        self.assertIn("the service does not start", said.err)
        self.assertIn("nothing was changed", self.made().out)


class SystemUser(SynchronousTestCase):
    def test_it_is_made_by_what_the_host_has_and_stays_while_its_folders_do(self) -> None:
        ran: list[list[str]] = []
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        step = SystemUserStep("nobody-yet", (str(folder),), lambda words: ran.append(list(words)))
        for tools, first in (({"systemd-sysusers"}, "systemd-sysusers"), ({"useradd"}, "useradd")):
            self.patch(plan.shutil, "which", lambda name, tools=tools: name if name in tools else None)
            with self.assertRaises(OSError):  # it was not made after all
                step.make({})
            self.assertEqual(ran[-1][0], first)
        self.patch(plan.shutil, "which", lambda name: None)
        self.assertIn("neither", str(self.assertRaises(OSError, step.make, {})))

    def test_without_systemd_the_server_is_started_by_hand(self) -> None:
        host = plan.QuickHost(
            uid=0, home="/root", twistd="/opt/mailserver/bin/twistd", program="mailserver", has_systemd=False, systemd_runs=False,
            has_ipv6=True, run=lambda words: None,
        )  # fmt: skip
        self.assertEqual(next_commands(HOUSE, host)[0][0], "/opt/mailserver/bin/twistd -n --uid mailserver --gid mailserver mailserver")
