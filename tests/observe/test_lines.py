from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.observe.lines import (
    FIELDS_OCTETS,
    Stamps,
    encode_fields,
    json_event,
    json_step,
    text_event,
    text_step,
    text_value,
)
from tests.any_octets import any_octets

STAMP = "2026-11-23T01:02:03.456Z"
ID = "1K0WZABCDEFGHJKM"
EVIL = "x\r\n2026-11-23T01:02:03.456Z 1K0WZ accepted sender=<forged@x>\x1b[2J\x00\x7f\x85\u2028\u202e\ud800"
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=3)


def as_json(**fields: object) -> str:
    return json_step(STAMP, ID, "accepted", encode_fields(fields)[0])


class TextTests(SynchronousTestCase):
    def test_a_step_is_one_line_of_names_and_values(self) -> None:
        line = text_step(
            STAMP,
            ID,
            "accepted",
            {"sender": "a@b", "recipients": ["c@d", "e@f"], "size": 4096, "ms": 1.5, "tls": True, "why": "all is well"},
        )
        self.assertEqual(
            line,
            f'{STAMP} {ID} accepted sender=<a@b> recipients=<c@d>,<e@f> size=4096 ms=1.5 tls=true why="all is well"\n',
        )

    def test_empty_fields_are_left_out_but_the_null_sender_is_said(self) -> None:
        line = text_step(STAMP, ID, "accepted", {"sender": "", "why": "", "login": None, "size": 0, "recipients": []})
        self.assertEqual(line, f"{STAMP} {ID} accepted sender=<> size=0 recipients=-\n")
        self.assertEqual(text_step(STAMP, ID, "accepted", {"sender": "", "why": "", "size": 0}), f"{STAMP} {ID} accepted sender=<> size=0\n")

    def test_quotes_blanks_commas_and_backslashes_are_quoted(self) -> None:
        for text in ("a b", 'a"b', "a,b", "a\\b"):
            self.assertEqual(text_value(text), json.dumps(text))
        self.assertEqual(text_value(["a,b", "c"]), '"a,b",c')
        self.assertEqual(text_value("jürgen"), '"jürgen"')

    def test_nothing_of_a_peer_reaches_a_terminal_or_forges_a_line(self) -> None:
        for line in (
            text_step(STAMP, ID, "hello", {"name": EVIL}),
            text_step(STAMP, ID, "hello", {"sender": EVIL}),
            text_step(STAMP, ID, "hello", {"names": [EVIL]}),
            text_step(STAMP, EVIL, EVIL, {}),
        ):
            self.assert_is_one_printable_line(line)
            self.assertTrue(line.startswith(STAMP + " "))

    def test_a_value_cannot_pretend_to_be_another_field(self) -> None:
        self.assertEqual(
            text_step(STAMP, ID, "hello", {"name": "x sender=<a@b>"}), f'{STAMP} {ID} hello name="x sender=<a@b>"\n'
        )

    @given(st.dictionaries(st.sampled_from(["sender", "recipients", "why", "note"]), values))
    def test_whatever_the_fields_hold_it_is_one_printable_line(self, fields: dict[str, object]) -> None:
        self.assert_is_one_printable_line(text_step(STAMP, ID, "step", fields))

    def assert_is_one_printable_line(self, line: str) -> None:
        self.assertTrue(line.endswith("\n"))
        self.assertTrue(line[:-1].isprintable(), line)
        line.encode()


class JsonTests(SynchronousTestCase):
    def test_a_step_is_one_object_on_one_line(self) -> None:
        self.assertEqual(
            json.loads(as_json(sender="a@b", size=1, recipients=["c@d"])),
            {"time": STAMP, "id": ID, "step": "accepted", "sender": "a@b", "size": 1, "recipients": ["c@d"]},
        )
        self.assertEqual(json.loads(as_json()), {"time": STAMP, "id": ID, "step": "accepted"})

    def test_every_text_comes_back_and_only_ascii_goes_out(self) -> None:
        line = as_json(name=EVIL)
        self.assertIsNone(re.search(r"[^ -~]", line[:-1]))
        self.assertEqual(json.loads(line)["name"], EVIL)

    @given(st.dictionaries(st.sampled_from(["a", "b"]), values | any_octets() | st.complex_numbers()))
    def test_whatever_the_fields_hold_it_is_json(self, fields: dict[str, object]) -> None:
        line = as_json(**fields)
        self.assertEqual(line.count("\n"), 1)
        json.loads(line, parse_constant=self.fail)


class BoundTests(SynchronousTestCase):
    def test_long_values_and_lists_are_cut(self) -> None:
        encoded, fields = encode_fields({"why": "x" * 100_000, "recipients": ["a@b"] * 10_000, "size": 5})
        self.assertTrue(len(encoded) < FIELDS_OCTETS)
        self.assertEqual(json.loads(encoded), fields)
        self.assertIn("100000 characters", fields["why"])
        self.assertIn("10000 in all", fields["recipients"][-1])
        self.assertEqual(fields["size"], 5)

    def test_what_is_short_stays_as_it_is(self) -> None:
        given = {"why": "x" * 5000}
        self.assertIs(encode_fields(given)[1], given)


class EventTests(SynchronousTestCase):
    def test_no_line_of_a_message_or_traceback_looks_like_a_line_of_the_log(self) -> None:
        text = text_event(STAMP, "error", "n", f"first\n{STAMP} forged\x1b[2J", f"Traceback\n{STAMP} forged {EVIL}\n")
        first, *more = text[:-1].split("\n")
        self.assertEqual(first, f"{STAMP} - error [n] first")
        for line in more:
            self.assertTrue(line.startswith("    "))
            self.assertTrue(line.isprintable())

    def test_what_is_printable_stays_as_it_was_written(self) -> None:
        self.assertEqual(text_event(STAMP, "warn", "", 'größer als "5"', ""), f'{STAMP} - warn größer als "5"\n')

    def test_a_traceback_is_one_field_of_json(self) -> None:
        line = json_event(STAMP, "error", "n", "text", "a\nb\n")
        self.assertEqual(line.count("\n"), 1)
        self.assertEqual(
            json.loads(line), {"time": STAMP, "level": "error", "logger": "n", "text": "text", "traceback": "a\nb\n"}
        )


class StampsTests(SynchronousTestCase):
    def test_a_time_is_utc_with_milliseconds(self) -> None:
        stamps = Stamps()
        self.assertEqual(stamps(1795436523.9), "2026-11-23T12:22:03.900Z")
        self.assertEqual(stamps(1795436523.0), "2026-11-23T12:22:03.000Z")
        self.assertEqual(stamps(1795436522.9999), "2026-11-23T12:22:02.999Z")
