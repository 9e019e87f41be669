"""What holds for every command: exit codes, --config, help."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys

from mailserver.cli.command import COMMANDS, whole_parser
from mailserver.cli.examples import EXAMPLES
from mailserver.config import choice, load
from mailserver.config.glance import glance
from tests.cli.support import CONFIGURATION, CommandCase, run
from tests.requires import require_module


def _below(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found: list[argparse.ArgumentParser] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices.values()
    return found


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    return [parser, *(one for below in _below(parser) for one in _parsers(below))]


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
        for wrong in ((), ("burn",), ("queue",), ("queue", "burn"), ("explain",), ("user",), ("domain",), ("alias",), ("lockouts",), ("user", "add")):
            said = run(*wrong)
            self.assertEqual(said.code, 2, wrong)
            self.assertIn("usage: mailserver", said.err)

    def test_a_configuration_with_faults_is_78_and_says_them(self) -> None:
        self.configure("hostname = 5\n")
        for command in (("user", "list"), ("queue", "retry", "--all"), ("route", "x@example.org"), ("lockouts", "list")):
            said = self.command(*command)
            self.assertEqual((said.code, said.out), (78, ""), command)
            self.assertIn(f"{self.config}:1: hostname: must be text\n", said.err)

    def test_what_only_looks_at_the_queue_minds_only_where_it_is(self) -> None:
        self.configure('hostname = 5\ndata = "data"\n')
        self.assertEqual(self.command("queue", "list").out, "The queue is empty.\n")
        for faulty in ("data = 5\n", 'data = "/"\n', 'data = "data"\n[queue]\nexpire = "never"\n', "data = [\n", ""):
            self.configure(faulty)
            for command in (("queue", "list"), ("queue", "show", "x"), ("explain", "x")):
                said = self.command(*command)
                self.assertEqual((said.code, said.out), (78, ""), (faulty, command))
                self.assertIn(str(self.config), said.err)

    def test_a_glance_sees_what_the_whole_reading_sees(self) -> None:
        for text in ('data = "data"', 'data = "~/data"', 'data = "../x"\n[queue]\nexpire = "4d12h"\nwarn = "1h"'):
            self.configure(CONFIGURATION.replace('data = "data"', text.partition("\n")[0]) + text.partition("\n")[2])
            whole, seen = load(str(self.config)), glance(str(self.config))
            self.assertEqual((seen.data, seen.expire_seconds), (whole.data, whole.queue.expire))

    def test_a_word_that_is_nearly_right_is_told(self) -> None:
        for wrong, right in ((("queu",), "queue"), (("queue", "lst"), "list"), (("user", "passwd"), "password")):
            said = run(*wrong)
            self.assertEqual(said.code, 2)
            self.assertIn(f"did you mean '{right}'?", said.err)

    def test_the_version_is_told(self) -> None:
        said = run("--version")
        self.assertEqual(said.code, 0)
        self.assertRegex(said.out, r"^mailserver [0-9.]+ \(Python 3\.[0-9.]+, Twisted [0-9.]+\)$")

    def test_the_manual_and_completion_are_made_of_the_same_parser(self) -> None:
        require_module("argparse_manpage")
        require_module("shtab")
        page = run("manual", "page")
        self.assertEqual((page.code, page.err), (0, ""))
        self.assertTrue(page.out.startswith('.TH MAILSERVER "8"'))
        for words in ("queue redirect", "alias add", "explain"):
            self.assertIn(words, page.out)
        for shell in ("bash", "zsh", "tcsh"):
            self.assertIn("redirect", run("manual", shell).out)
        script = run("manual", "bash").out + "\ncomplete -p mailserver\n"
        bash = subprocess.run(["bash"], input=script.encode(), capture_output=True, timeout=60)
        self.assertEqual((bash.returncode, bash.stderr), (0, b""))

    def test_each_command_has_examples_and_each_of_them_is_a_command(self) -> None:
        parser = whole_parser()
        leaves = {one.prog for one in _parsers(parser) if not _below(one) or one.get_default("run")} - {"mailserver sendmail"}
        self.assertEqual(set(EXAMPLES), leaves)
        for prog, lines in EXAMPLES.items():
            for line in lines:
                ours = line.rpartition(" | ")[2]
                words = shlex.split(re.split(" [<>] ", ours)[0])
                self.assertRegex(ours, "^" + prog.replace(" USER ", r" \S+ "))
                self.assertTrue(callable(parser.parse_args(words[1:]).run), line)

    def test_a_command_that_asks_the_server_brings_neither_twisted_nor_the_schema_along(self) -> None:
        script = (
            "import sys; from mailserver.cli import main; main(sys.argv[1:]);"
            "print([one for one in ('twisted', 'pydantic', 'zope', 'mailserver.config.schema') if one in sys.modules])"
        )
        for words in (["queue", "list"], ["queue", "list", "--json"]):
            ended = subprocess.run(
                [sys.executable, "-c", script, *words, "--config", self.config], capture_output=True, timeout=60, check=True
            )
            self.assertEqual(ended.stdout.splitlines()[-1], b"[]")

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
