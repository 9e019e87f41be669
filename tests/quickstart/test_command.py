"""The command: made once, changed by nothing the second time, completed after a kill, taken back after a failure, undone."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any
from unittest import mock

from mailserver.authentication.passwords import verify_password
from mailserver.config import load, parse
from mailserver.plugins.catalogue import discover
from mailserver.quickstart import ledger as ledger_module
from mailserver.quickstart import steps as steps_module
from mailserver.quickstart.configuration_text import sample
from mailserver.quickstart.ledger import QuickLedger, ledger_path, read_ledger
from mailserver.trust.signing_keys import read_keys
from tests.cli.support import run
from tests.quickstart.support import ADDRESS, HouseCase, seen_of

LINES = 14  # of the ledger behind its first: two for each of seven steps
# Which line, and whether before it is written: a step was begun and nothing was made; all was made and not written down; all was.
CUTS = [(number, number % 2 == 1) for number in range(LINES)] + [(LINES - 1, False)]


@functools.cache
def imported() -> None:
    """Import what the command does: else each child of ours would."""
    parse(sample(), file="sample", directory="/", options_of=discover().options_of)


class Making(HouseCase):
    def test_all_is_made_and_check_finds_no_fault(self) -> None:
        said = self.made()
        configuration = load(str(self.config), discover().options_of)
        self.assertEqual((configuration.hostname, configuration.relay.use), ("mail.example.org", "mx"))
        checked = run("check", "--config", str(self.config))
        self.assertEqual(checked.code, 0, checked.out)
        self.assertIn("no faults", checked.out)
        keys = read_keys(configuration.keys_path)["example.org"].keys
        self.assertEqual([(one.kind, one.state) for one in keys], [
            ("rsa", "active"), ("ed25519", "active"), ("rsa", "next"), ("ed25519", "next"),
        ])  # fmt: skip
        password = self.password_of(said)
        self.assertGreaterEqual(len(password), 20)
        self.assertTrue(verify_password(password, self.kept_hash() or ""))
        for folder in (self.data, Path(configuration.keys_path)):
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700)
        for path in self.folder.rglob("*"):
            if path.is_file():
                self.assertNotIn(password.encode(), path.read_bytes(), str(path))

    def test_it_prints_what_a_mail_program_and_the_dns_need_and_the_next_command(self) -> None:
        said = self.made("--address", "198.18.0.1", "--imap", "mail.example.org")
        self.assertIn("mail.example.org, port 465, TLS, user you@example.org", said.out)
        zone = run("dns", "example.org", "--zone", "--config", str(self.config)).out
        self.assertIn(zone, said.out)
        for wanted in (
            "example.org. 3600 IN MX 10 mail.example.org.", "mail.example.org. 3600 IN A 198.18.0.1", '"v=spf1 mx ~all"',
            '"v=spf1 a -all"', "_domainkey.example.org.", "v=DMARC1; p=none; rua=mailto:", "v=TLSRPTv1; rua=mailto:",
            "mail.example.org. 3600 IN CAA 0 issue", "_mta-sts.example.org.", "autoconfig.example.org.", "autodiscover.example.org.",
            "_submissions._tcp.example.org.", "_submission._tcp.example.org.", "TLSA 3 1 1", "PTR mail.example.org.",
        ):  # fmt: skip
            self.assertIn(wanted, zone)
        self.assertEqual(zone.count("_domainkey.example.org."), 4)
        self.assertIn(f"/opt/mailserver/bin/twistd -n mailserver --config {self.config}", said.out)

    def test_for_programs_all_of_it_is_one_json_value(self) -> None:
        said = self.made("--json")
        found = said.json
        self.assertTrue(verify_password(found["password"], self.kept_hash() or ""))
        self.assertEqual(found["clients"][0]["port"], 465)
        self.assertIn("example.org. 3600 IN MX 10 mail.example.org.", found["zone"])
        again = self.made("--json").json
        self.assertEqual((again["made"], again["password"]), ([], None))

    def test_a_second_run_changes_nothing_and_says_so(self) -> None:
        self.made()
        before, hash = seen_of(self.folder), self.kept_hash()
        said = self.made()
        self.assertEqual(seen_of(self.folder), before)
        self.assertEqual(self.kept_hash(), hash)
        self.assertIn("nothing was changed", said.out)
        self.assertIn("The password of you@example.org is as it was", said.out)

    def test_a_password_of_a_script_is_taken_and_not_shown(self) -> None:
        said = self.made("--password-stdin", stdin="correct horse\n")
        self.assertNotIn("correct horse", said.out)
        self.assertTrue(verify_password("correct horse", self.kept_hash() or ""))

    def test_a_dry_run_makes_nothing(self) -> None:
        said = self.quickstart(ADDRESS, "--data", str(self.data), "--dry-run")
        self.assertEqual((said.code, seen_of(self.folder)), (0, {}))
        self.assertIn("Nothing was made", said.out)
        self.assertIn(str(self.config), said.out)

    def test_a_smarthost_and_a_short_list_of_listeners_are_understood(self) -> None:
        self.made("--smarthost", "smtp.isp.example:465", "--no-web", "--no-acme", "--keys", str(self.folder / "k"))
        configuration = load(str(self.config), discover().options_of)
        relay: Any = configuration.relay
        self.assertEqual((relay.use, relay.options.host, relay.options.implicit_tls), ("smarthost", "smtp.isp.example", True))
        self.assertEqual(configuration.keys_path, str(self.folder / "k"))
        self.assertNotIn("web", {str(one.service) for one in configuration.listen})

    def test_the_sample_of_a_package_is_nobodys(self) -> None:
        self.config.parent.mkdir()
        programs = sample().replace('#users = "all" ', 'users = "all"  ')
        self.config.write_text(programs)
        self.made()
        self.assertIn('users = "all"', self.config.read_text())
        self.assertIn('hostname = "mail.example.org"', self.config.read_text())
        self.assertEqual(stat.S_IMODE(self.data.stat().st_mode), 0o711)
        self.undone()
        self.assertEqual(self.config.read_text(), programs)


class Refusing(HouseCase):
    def refused(self, *words: str, code: int = 1) -> str:
        before = seen_of(self.folder)
        said = self.quickstart(*words, "--yes")
        self.assertEqual(said.code, code, said.out + said.err)
        self.assertEqual(seen_of(self.folder), before)
        self.assertTrue(said.err.startswith("mailserver: "), said.err)
        return said.err

    def test_what_is_no_address_leaves_nothing(self) -> None:
        for address, why in (
            ("you", "not an address"), ("you@localhost", "single label"), ("you@[192.0.2.1]", "address literal"),
            ("@example.org", "not an address"), ("you@exa mple.org", "not an address"), ("a..b@example.org", "local part"),
            ("you@example..org", "not an address"),
        ):  # fmt: skip
            self.assertIn(why, self.refused(address, "--data", str(self.data)))
        for words, why in (
            (("--hostname", "mail"), "fully qualified"), (("--address", "1.2.3"), "no IP address"),
            (("--smarthost", "a:b:c"), "HOST:PORT"), (("--data", str(self.config.parent)), "who could change it"),
            (("--data", str(self.data), "--keys", f"{self.data}/keys"), "keys belong into no copy"),
        ):  # fmt: skip
            self.assertIn(why, self.refused(ADDRESS, *words))
        self.refused(code=2)

    def test_a_domain_of_another_script_is_an_a_label(self) -> None:
        said = self.quickstart("you@bücher.example", "--data", str(self.data), "--dry-run")
        self.assertIn("xn--bcher-kva.example", said.out)
        self.assertEqual(said.code, 0)

    def test_a_configuration_by_another_hand_is_left_alone(self) -> None:
        self.config.parent.mkdir()
        self.config.write_text('hostname = "mail.example.net"\n')
        self.assertIn("no quickstart has made it", self.refused(ADDRESS, "--data", str(self.data)))

    def test_another_house_is_left_alone(self) -> None:
        self.made()
        self.assertIn("was for address 'you@example.org', not 'me@example.net'", self.refused("me@example.net"))
        self.assertIn("hostname", self.refused(ADDRESS, "--hostname", "mx.example.org"))

    def test_an_account_that_is_there_is_left_alone(self) -> None:
        self.data.mkdir(parents=True)
        (self.data / "accounts.toml").write_text(f'[account."{ADDRESS}"]\n')
        self.assertIn("has the account", self.refused(ADDRESS, "--data", str(self.data)))

    def test_without_a_terminal_it_wants_a_yes(self) -> None:
        said = self.quickstart(ADDRESS, "--data", str(self.data))
        self.assertEqual((said.code, seen_of(self.folder)), (2, {}))

    def test_a_folder_that_cannot_be_written_leaves_nothing(self) -> None:
        for number, code in ((errno.EROFS, 74), (errno.EACCES, 77)):
            with mock.patch.object(ledger_module.os, "mkdir", side_effect=OSError(number, os.strerror(number), "/etc/x")):
                said = self.quickstart(ADDRESS, "--data", str(self.data), "--yes")
            self.assertEqual((said.code, seen_of(self.folder)), (code, {}))
            self.assertIn(os.strerror(number), said.err)

    def test_a_folder_of_another_user_is_told(self) -> None:
        with mock.patch("mailserver.quickstart.plan.os.geteuid", return_value=54321):
            self.data.mkdir(parents=True)
            before = seen_of(self.folder)
            said = self.quickstart(ADDRESS, "--data", str(self.data), "--yes")
        self.assertEqual((said.code, seen_of(self.folder).keys()), (77, before.keys()))
        self.assertIn("belongs to another user", said.err)


class CutOff(HouseCase):
    """A child of this process is the command; it ends, or is killed, somewhere on its way."""

    def setUp(self) -> None:
        super().setUp()
        imported()

    def child(self, die: Any) -> int:
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                die()
                self.quickstart(ADDRESS, "--data", str(self.data), "--hostname", "mail.example.org", "--yes")
            os._exit(7)
        return pid

    def test_wherever_it_was_cut_off_the_next_run_completes_it_and_undo_leaves_nothing(self) -> None:
        for number, before in CUTS:
            os.waitpid(self.child(lambda: self.die_at(number, before)), 0)
            begun = read_ledger(str(self.config))
            self.assertFalse(begun is None or begun.is_done)
            said = self.made()
            self.assertIn("cut off", said.out)
            self.assertTrue(verify_password(self.password_of(said), self.kept_hash() or ""), number)
            self.undone()
            self.assertEqual(seen_of(self.folder), {}, f"{number} {before}")

    def die_at(self, number: int, before: bool) -> None:
        plain, calls = QuickLedger._append, iter(range(1000))

        def append(ledger: QuickLedger, value: Any) -> None:
            is_this = next(calls) == number
            if is_this and before:
                os._exit(9)
            plain(ledger, value)
            if is_this:
                os._exit(9)

        QuickLedger._append = append  # type: ignore[method-assign]  # in the child alone

    def test_cut_off_and_undone_it_leaves_nothing(self) -> None:
        for number in range(1, LINES, 2):
            os.waitpid(self.child(lambda: self.die_at(number, True)), 0)
            self.undone()
            self.assertEqual(seen_of(self.folder), {}, str(number))

    def test_a_file_that_was_being_written_is_no_obstacle(self) -> None:
        for name in ("dkim/changes", "accounts.toml", "self-signed.pem", "mailserver.toml"):
            os.waitpid(self.child(lambda name=name: self.die_while_writing(name)), 0)  # type: ignore[misc]
            left = [one for one in seen_of(self.folder) if one.endswith(".new")]
            self.assertNotEqual(left, [], name)
            if name != "accounts.toml":
                self.made()
                self.assertEqual([one for one in seen_of(self.folder) if one.endswith(".new")], [], name)
            self.undone()
            self.assertEqual(seen_of(self.folder), {}, name)

    def die_while_writing(self, name: str) -> None:
        plain = os.rename

        def rename(source: str, target: str) -> None:
            if target.endswith(name):
                os._exit(9)
            plain(source, target)

        os.rename = os.replace = rename  # type: ignore[assignment]  # in the child alone

    def test_killed_by_the_kernel_it_is_completed(self) -> None:
        pid = self.child(lambda: None)
        states = Path(f"{self.data}-keys") / "dkim" / "example.org"
        until = time.monotonic() + 60
        while not states.exists() and time.monotonic() < until:
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.made()
        self.assertEqual(run("check", "--config", str(self.config)).code, 0)
        self.undone()
        self.assertEqual(seen_of(self.folder), {})

    def test_killed_before_there_is_a_ledger_it_is_taken_back_too(self) -> None:
        def die() -> None:
            ledger_module.os.rename = lambda *_: os._exit(9)  # in the child alone

        os.waitpid(self.child(die), 0)
        self.assertNotEqual(seen_of(self.folder), {})
        self.undone()
        self.assertEqual(seen_of(self.folder), {})

    def test_one_that_has_just_made_its_folder_is_met_there_by_the_next(self) -> None:
        plain, met = QuickLedger._append, []

        def append(ledger: QuickLedger, value: Any) -> None:
            if not met:
                met.append(ledger)
                met.append(self.quickstart(ADDRESS, "--data", str(self.data), "--yes"))
            plain(ledger, value)

        with mock.patch.object(QuickLedger, "_append", append):
            self.made()
        self.assertEqual(met[1].code, 74)
        self.assertRegex(met[1].err, "another program is changing something in .*/etc: nothing was touched")

    def test_a_last_line_that_was_cut_off_counts_as_none(self) -> None:
        os.waitpid(self.child(lambda: self.die_at(4, False)), 0)
        with open(ledger_path(str(self.config)), "ab") as file:
            file.write(b'{"step": "cer')
        self.made()
        self.undone()
        self.assertEqual(seen_of(self.folder), {})


class Failing(HouseCase):
    def test_whichever_line_finds_no_room_nothing_is_left(self) -> None:
        plain = QuickLedger._append
        for number in range(LINES):
            calls = iter(range(1000))

            def append(ledger: QuickLedger, value: Any) -> None:
                if next(calls) >= number:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), ledger.path)
                plain(ledger, value)

            with mock.patch.object(QuickLedger, "_append", append):
                said = self.quickstart(ADDRESS, "--data", str(self.data), "--hostname", "mail.example.org", "--yes")
            self.assertEqual((said.code, seen_of(self.folder)), (74, {}), f"{number}: {said.err}")
            self.assertIn("No space left", said.err)

    def test_whichever_step_fails_nothing_is_left(self) -> None:
        failure = OSError(errno.EIO, os.strerror(errno.EIO), "/somewhere")
        for what in (
            "steps.FolderStep.make", "own_steps.make_keys", "own_steps.self_signed_pair", "own_steps.keep_password",
            "steps.replace_file",
        ):  # fmt: skip
            with mock.patch(f"mailserver.quickstart.{what}", side_effect=failure):
                said = self.quickstart(ADDRESS, "--data", str(self.data), "--hostname", "mail.example.org", "--yes")
            self.assertEqual((said.code, seen_of(self.folder)), (74, {}), f"{what}: {said.err}")

    def test_a_password_that_nobody_may_have_leaves_nothing(self) -> None:
        said = self.quickstart(ADDRESS, "--data", str(self.data), "--yes", "--password-stdin", stdin="\n")
        self.assertEqual((said.code, seen_of(self.folder)), (1, {}))
        self.assertIn("not empty", said.err)

    def test_what_cannot_be_said_at_the_end_stays_and_the_next_run_says_it(self) -> None:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mock.patch("mailserver.cli.quickstart._tell", side_effect=full):
            said = self.quickstart(ADDRESS, "--data", str(self.data), "--hostname", "mail.example.org", "--yes")
        self.assertEqual(said.code, 74)
        self.assertIn("some of it stays: the same command completes it", said.err)
        self.assertTrue(verify_password(self.password_of(self.made()), self.kept_hash() or ""))

    def test_a_folder_that_was_never_made_is_gone_also_where_the_disk_is_read_only(self) -> None:
        full, rmdir = OSError(errno.EROFS, os.strerror(errno.EROFS)), os.rmdir

        def read_only(path: str) -> None:
            if "/lib" in path:
                raise full
            rmdir(path)

        self.config.parent.mkdir()
        with mock.patch.object(steps_module.os, "mkdir", side_effect=full), mock.patch.object(steps_module.os, "rmdir", read_only):
            said = self.quickstart(ADDRESS, "--data", str(self.data), "--hostname", "mail.example.org", "--yes")
        self.assertEqual((said.code, [*seen_of(self.folder)]), (74, ["etc"]))
        self.assertIn("what was made was taken back", said.err)

    def test_an_interrupt_leaves_nothing(self) -> None:
        with mock.patch("mailserver.quickstart.own_steps.self_signed_pair", side_effect=KeyboardInterrupt):
            said = self.quickstart(ADDRESS, "--data", str(self.data), "--yes")
        self.assertEqual((said.code, seen_of(self.folder)), (130, {}))

    def test_a_second_run_that_fails_leaves_what_the_first_has_made(self) -> None:
        self.made()
        (self.data / "tls" / "self-signed.pem").unlink()
        before = seen_of(self.data)
        with mock.patch("mailserver.quickstart.own_steps.self_signed_pair", side_effect=OSError(5, "no")):
            said = self.quickstart(ADDRESS, "--yes")
        self.assertEqual(said.code, 74)
        self.assertTrue(self.config.exists())
        self.assertEqual(seen_of(self.data), before)
        self.assertIn("Made:", self.made().out)


class Undoing(HouseCase):
    def test_it_takes_away_exactly_what_was_made(self) -> None:
        (self.folder / "lib").mkdir()
        before = set(seen_of(self.folder))
        self.made()
        self.undone()
        self.assertEqual(set(seen_of(self.folder)), before)
        self.assertEqual(self.quickstart("--undo", "--yes").code, 1)

    def test_mail_and_what_was_changed_since_stay_and_are_told(self) -> None:
        self.made()
        with open(self.config, "a") as file:
            file.write("# mine\n")
        mail = self.data / "mail" / "example.org" / "you" / "new" / "1"
        mail.parent.mkdir(parents=True)
        mail.write_text("a letter")
        run("user", "add", "bob@example.org", "--no-password", "--config", str(self.config))
        said = self.quickstart("--undo", "--yes")
        self.assertEqual(said.code, 1)
        self.assertIn(f"{self.config} stays: it was changed since", said.out)
        self.assertIn(f"{self.data} stays: it has accounts.toml, mail", said.out)
        self.assertTrue(mail.exists())
        self.assertIn("bob@example.org", (self.data / "accounts.toml").read_text())
        self.assertNotIn(ADDRESS, (self.data / "accounts.toml").read_text())
        self.assertFalse(Path(f"{self.data}-keys").exists())

    def test_keys_that_were_rotated_and_a_password_that_was_changed_stay(self) -> None:
        self.made()
        keys = next((Path(f"{self.data}-keys") / "dkim" / "example.org").glob("*r.pem"))
        os.chmod(keys, 0o600)
        keys.write_text("another")
        run("user", "password", ADDRESS, "--password-stdin", "--config", str(self.config), stdin="a new one\n")
        said = self.quickstart("--undo", "--yes")
        self.assertIn("it was changed since", said.out)
        self.assertIn(f"the account {ADDRESS} stays", said.out)
        self.assertEqual(len(list(keys.parent.glob("*.pem"))), 4)

    def test_one_thing_that_cannot_be_removed_does_not_keep_the_others(self) -> None:
        self.made()
        with mock.patch("mailserver.quickstart.own_steps.CertificateStep.undo", side_effect=OSError(5, "no", "/x")):
            said = self.quickstart("--undo", "--yes")
        self.assertEqual(said.code, 74)
        self.assertFalse(self.config.exists())
        self.assertTrue((self.data / "tls").exists())
        self.undone()
        self.assertEqual(seen_of(self.folder), {})

    def test_a_ledger_that_others_may_write_is_not_believed(self) -> None:
        self.made()
        os.chmod(ledger_path(str(self.config)), 0o666)
        said = self.quickstart("--undo", "--yes")
        self.assertEqual(said.code, 74)
        self.assertIn("may be written by others", said.err)
        self.assertTrue(self.config.exists())
