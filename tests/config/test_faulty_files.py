"""Whatever stands in the file, the answer is a configuration or a list of faults, never an exception of something within."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import Configuration, ConfigurationError, Options, load, parse
from mailserver.config.document import FILE_OCTETS
from mailserver.config.endpoints import place_of
from mailserver.plugins.catalogue import discover
from tests.config.support import LEAST, faults, parsed, with_more

WRONG: tuple[Any, ...] = (
    -1, 1.5, 2**63 - 1, True, "", "\0", "é@", "1" * 500, "99999999999d", [], [[]], [5], ["x", 5, {}], {"x": 5}, {"x": {"y": {}}}, [{}],
)  # fmt: skip


def fields_of(model: type[Options], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The key paths of a table class and of the tables within it; "[]" stands for an element, "*" for a name."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        for inner, step in _tables_in(field.annotation):
            yield from fields_of(inner, (*path, name, *step))


def _tables_in(annotation: Any) -> Iterator[tuple[type[Options], tuple[str, ...]]]:
    if isinstance(annotation, type) and issubclass(annotation, Options):
        yield annotation, ()
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    for argument in arguments:
        step = ("*",) if origin is dict else ("[]",) if origin is tuple else ()
        for model, more in _tables_in(argument):
            yield model, (*step, *more)


def toml(value: Any) -> str:
    """A value in TOML; JSON's form of all but tables serves."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def document_with(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The least document with a value at a path."""
    least: dict[str, Any] = {
        "hostname": "mail.example.org",
        "data": "data",
        "listen": [{"service": "mx", "endpoint": "tcp:25"}],
    }
    table: Any = least
    for n, part in enumerate(path):
        part = "example.org" if part == "*" else part
        if n == len(path) - 1:
            table[part] = value
        elif part == "[]":
            continue
        elif n + 1 < len(path) and path[n + 1] == "[]":
            table = table.setdefault(part, [{}])[0]
        else:
            table = table.setdefault(part, {})
    return least


class AnyValue(SynchronousTestCase):
    def test_any_value_of_any_key_is_taken_or_is_a_fault_with_a_line(self) -> None:
        catalogue = discover()
        for path in fields_of(Configuration):
            for value in WRONG:
                document = document_with(path, value)
                text = "\n".join(f"{json.dumps(name)} = {toml(inner)}" for name, inner in document.items())
                try:
                    parse(text, file="f", directory="/etc/mail", options_of=catalogue.options_of)
                except ConfigurationError as error:
                    self.assertTrue(all(fault.line >= 1 and fault.message for fault in error.faults), text)

    def test_any_value_of_any_key_of_a_component_too(self) -> None:
        catalogue = discover()
        for section in ("accounts", "delivery", "relay"):
            for name, model in _components(catalogue, section):
                for path in fields_of(model):
                    for value in WRONG:
                        document = document_with((section, *path), value)
                        document[section].setdefault("use", name)
                        text = "\n".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in document.items())
                        try:
                            parse(text, file="f", directory="/etc/mail", options_of=catalogue.options_of)
                        except ConfigurationError as error:
                            self.assertTrue(error.faults, text)


def _components(catalogue: Any, section: str) -> Iterator[tuple[str, type[Options]]]:
    known = {
        "accounts": ("file", "system", "sql", "ldap"),
        "delivery": ("maildir", "lmtp", "pipe", "discard"),
        "relay": ("mx", "smarthost", "capture"),
    }
    for name in known[section]:
        yield name, catalogue.options_of(section, name)


class Documents(SynchronousTestCase):
    def test_brackets_by_the_thousand_are_a_fault(self) -> None:
        for text in (
            "a = " + "[" * 3000 + "]" * 3000,
            "a = " + "{a = " * 3000 + "1" + "}" * 3000,
            LEAST + "[" + ".".join(["a"] * 3000) + "]\nx = 1\n",
            LEAST + ".".join(["a"] * 2000) + " = 1\n",
            LEAST + "a = " + "[" * 30 + "]" * 30,
        ):
            (fault,) = faults(text)
            self.assertIn("within each other", fault)

    def test_a_number_of_five_thousand_digits_is_a_fault(self) -> None:
        for digits in ("9" * 5000, "0x" + "f" * 5000, "9" * 30, "-" + "9" * 30):
            self.assertEqual(faults(LEAST + f"[limits]\nrecipients = {digits}\n"), ["1 : has a number that is out of range"])

    def test_a_byte_order_mark_is_passed_over(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"\xef\xbb\xbf" + LEAST.encode())
        self.assertEqual(load(path).hostname, "mail.example.org")

    def test_a_file_without_end_is_read_to_a_bound(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            load("/dev/zero")
        self.assertIn(f"larger than {FILE_OCTETS}", str(caught.exception))

    def test_an_alias_that_is_no_list_is_a_fault_at_its_key(self) -> None:
        table = '[domain."example.org"]\n'
        self.assertEqual(
            faults(LEAST + table + "aliases.sales = 5\n"), ['7 domain."example.org".aliases.sales: must be a list']
        )
        (fault,) = faults(LEAST + table + "aliases.sales = [5]\n")
        self.assertIn("sales[0]: must be an address", fault)


class NotMeant(SynchronousTestCase):
    """What is well formed and cannot be meant."""

    def test_letters_blanks_and_the_at_sign_separate_nobody(self) -> None:
        for separator in ("a", "Z", "5", "@", " ", "é", '"', "\\\\", "<", ",", ":"):
            (fault,) = faults(LEAST + f"[domain.\"example.org\"]\nsubaddress = '{separator}'\n".replace("'\\\\\\\\'", "'\\\\'"))
            self.assertIn("separates nobody", fault)
        for separator in ("", "+", "-", ".", "+-", "_=#"):
            parsed(LEAST + f'[domain."example.org"]\nsubaddress = "{separator}"\n')

    def test_one_port_in_two_spellings_is_one_port(self) -> None:
        for one, other in (
            ("tcp:25", "tcp:port=25"),
            ("tcp:25", "haproxy:tcp:25"),
            ("tcp:25", "tcp:25:interface=127.0.0.1"),
            ("tcp:25:interface=127.0.0.1", "tcp:025:interface=127.0.0.1:backlog=5"),
            ("tcp6:25", "tcp6:25:interface=\\:\\:"),
            ("tcp6:25:interface=\\:\\:1", "tcp:25:interface=0\\:0\\:0\\:0\\:0\\:0\\:0\\:1"),
            ("unix:/run/x", "unix:/run//y/../x:mode=600"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        ):
            text = LEAST.replace("tcp:25", one) + f"[[listen]]\nservice = \"mx\"\nendpoint = '{other}'\n"
            self.assertEqual(
                faults(text.replace(f'"{one}"', f"'{one}'")), ["8 listen[1].endpoint: is the endpoint of listen[0], too"], other
            )

    def test_ports_that_do_not_meet_are_two(self) -> None:
        for one, other in (
            ("tcp:25", "tcp:26"),
            ("tcp:0", "tcp:0"),
            ("tcp:25:interface=127.0.0.1", "tcp:25:interface=127.0.0.2"),
            ("tcp:25", "unix:/run/x"),
            ("unix:/run/x", "unix:/run/y"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=1"),
        ):
            first, second = place_of(one), place_of(other)
            assert first is not None and second is not None
            self.assertFalse(first.clashes_with(second), (one, other))
            self.assertFalse(second.clashes_with(first), (one, other))

    def test_a_folder_of_the_system_is_not_the_servers(self) -> None:
        for folder in ("/", "/etc", "/var/lib/", "/tmp/../var"):
            (fault,) = faults(LEAST.replace('"data"', f'"{folder}"'))
            self.assertIn("belongs to the system", fault)

    def test_nobody_below_one_gets_mail_as_a_system_user(self) -> None:
        options_of = discover().options_of
        for table in (
            '[accounts]\nuse = "system"\nuid_min = 0\n',
            '[delivery]\nuse = "maildir"\npath = "{home}/Maildir"\nuid_min = 0\n',
            '[delivery]\nuse = "pipe"\ncommand = ["/bin/cat"]\nuid_min = 0\n',
        ):
            self.assertIn("must be at least 1", faults(LEAST + table, options_of)[0])

    def test_times_and_counts_that_nobody_lives_to_see_are_faults(self) -> None:
        for line, words in (
            ('[queue]\nexpire = "4000d"', "longer than ten years"),
            ("[limits]\ncommand_seconds = 1e300", "longer than ten years"),
            ('[queue]\nretry = ["1ms"]', "at least 1"),
            ("[limits]\nconnections = 10000000000", "at most"),
            ("[limits]\nmessage_bytes = 9000000000000000000", "larger than any disk"),
            ("[submission]\nmessages_per_day = 9000000000000000", "at most"),
            ("[log]\nretention_days = 100000", "at most"),
        ):
            self.assertIn(words, faults(LEAST + line + "\n")[0])
        with_more('[queue]\nexpire = "3600d"\n')


