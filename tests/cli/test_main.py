"""What holds for every command: exit codes, --config, help."""

from __future__ import annotations

import os

from mailserver.cli import COMMANDS
from mailserver.config import choice
from tests.cli.support import CommandCase, run


class EveryCommand(CommandCase):
    def test_help_names_every_command_and_the_exit_codes(self) -> None:
        said = run("--help")
        self.assertEqual(said.code, 0)
        for name, summary in COMMANDS.items():
            self.assertIn(name, said.out)
            self.assertIn(summary, " ".join(said.out.split()))
        self.assertIn("78 the configuration has faults", " ".join(said.out.split()))

    def test_each_commands_own_help_works(self) -> None:
        for name in COMMANDS:
            self.assertEqual(run(name, "--help").code, 0, name)

    def test_a_wrong_command_line_is_2(self) -> None:
        for wrong in ((), ("burn",), ("queue",), ("queue", "burn"), ("explain",), ("user", "add")):
            said = run(*wrong)
            self.assertEqual(said.code, 2, wrong)
            self.assertIn("usage: mailserver", said.err)

    def test_a_configuration_with_faults_is_78_and_says_them(self) -> None:
        self.configure("hostname = 5\n")
        for command in (("queue", "list"), ("queue", "show", "x"), ("explain", "x"), ("user", "list")):
            said = self.command(*command)
            self.assertEqual((said.code, said.out), (78, ""), command)
            self.assertIn(f"{self.config}:1: hostname: must be text\n", said.err)

    def test_a_configuration_that_is_not_there_is_78_and_named(self) -> None:
        said = run("queue", "list", "--config", "/nowhere/mailserver.toml")
        self.assertEqual(said.code, 78)
        self.assertIn("/nowhere/mailserver.toml:1: cannot be read: No such file", said.err)

    def test_nothing_is_taken_from_the_current_folder(self) -> None:
        os.mkdir(self.folder / "sandbox")
        self.config.rename(self.folder / "sandbox" / "mailserver.toml")
        (self.folder / "mailserver.toml").write_bytes((self.folder / "sandbox" / "mailserver.toml").read_bytes())
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.folder)
        self.patch(choice, "INSTALLED", "/nowhere/mailserver.toml")
        said = run("queue", "list")
        self.assertEqual((said.code, said.out), (78, ""))
        self.assertIn("/nowhere/mailserver.toml:1: is not there; --config FILE", said.err)

    def test_the_environment_chooses_one_and_that_is_told(self) -> None:
        self.patch(os, "environ", {**os.environ, "MAILSERVER_CONFIG": str(self.config)})
        said = run("queue", "list")
        self.assertEqual(said.out, "The queue is empty.\n")
        self.assertIn(f"the configuration is {self.config} ($MAILSERVER_CONFIG)", said.err)

    def test_the_environment_of_another_user_chooses_nothing(self) -> None:
        self.patch(os, "environ", {**os.environ, "MAILSERVER_CONFIG": str(self.config)})
        self.patch(choice, "INSTALLED", "/nowhere/mailserver.toml")
        for name in ("getuid", "getgid"):
            value = getattr(os, name)()
            self.patch(os, name, lambda value=value: value + 1)
            self.assertEqual(run("queue", "list").code, 78)
            self.patch(os, name, lambda value=value: value)
        self.assertEqual(run("queue", "list").code, 0)

    def test_plugins_need_no_configuration(self) -> None:
        self.patch(choice, "INSTALLED", "/nowhere/mailserver.toml")
        self.assertEqual(run("plugins", "check").code, 0)

    def test_options_may_stand_before_or_after_the_action(self) -> None:
        self.assertEqual(run("plugins", "--json", "check").out[:1], "{")
        self.assertEqual(run("plugins", "check", "--json").out[:1], "{")
