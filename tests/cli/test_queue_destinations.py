"""``mailserver queue destinations``."""

import io
import json
from argparse import Namespace
from contextlib import redirect_stdout
from dataclasses import asdict, replace

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli import queue_destinations
from mailserver.cli.output import Unable
from mailserver.control.client import NoServer
from tests.control.test_queue import STATE

QUICK = replace(STATE, name="mx.example", waiting=0, put_off=0, connections_most=20, per_minute=None, paused_seconds=0.0, last_reply="", addresses=())


class Shown(SynchronousTestCase):
    def show(self, *states, name="", as_json=False):
        def ask(data, command, arguments):
            if not states:
                raise NoServer("nobody")
            return {"destinations": [asdict(one) for one in states]}

        self.patch(queue_destinations, "ask_server", ask)
        self.patch(queue_destinations, "data_directory", lambda config: "data")
        out = io.StringIO()
        with redirect_stdout(out):
            self.assertEqual(queue_destinations.show_destinations(Namespace(config="", name=name, json=as_json)), 0)
        return out.getvalue()

    def test_a_row_says_what_waits_and_why(self):
        shown = self.show(STATE, QUICK)
        for words in ("2 + 30 put off", "3 of 5, limit 20", "12.5 a minute, no limit", "pauses for 40s", "1 of 2 addresses out of reach"):
            self.assertIn(words, shown)
        self.assertIn("as it goes, 55 in the last minute", shown)

    def test_what_a_peer_has_said_is_shown_without_its_control_characters(self):
        shown = self.show(STATE)
        self.assertIn("421 4.7.28 ?[31mslow", shown)
        self.assertNotIn("\x1b", shown)

    def test_neither_does_json_move_the_cursor_or_turn_the_direction_of_writing(self):
        said = "a\x1b[2J\x9b31m\x7f\u202egro.elpmaxe\u2028\U000e0041\xe9 \u4e2d"
        shown = self.show(replace(STATE, last_reply=said), as_json=True)
        self.assertEqual(json.loads(shown)[0]["last_reply"], said)
        self.assertTrue(all(one.isprintable() for one in shown.splitlines()), shown)
        self.assertIn("\xe9 \u4e2d", shown)

    def test_one_is_shown_with_its_addresses(self):
        shown = self.show(STATE, QUICK, name="Google")
        self.assertIn("mx2.google.com", shown)
        self.assertIn("tried in 30s: no", shown)
        self.assertNotIn("mx.example", shown)
        self.assertRaises(Unable, self.show, STATE, name="nobody")

    def test_as_json_it_is_what_the_server_says(self):
        (found,) = json.loads(self.show(STATE, as_json=True))
        self.assertEqual(found["addresses"][1]["out_of_reach_seconds"], 30.0)

    def test_without_a_server_nobody_knows(self):
        self.assertRaises(Unable, self.show)
