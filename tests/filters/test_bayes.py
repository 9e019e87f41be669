"""The filter that learns: what it says, to whom, from when on, and what it does where nothing can be read."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
from twisted.logger import capturedLogs

from mailserver.api import AllHang, ConfigurationError, Finding, Pass, Services, StorageDamaged, StorageFull
from mailserver.filters import moved_mail_sweep, token_memory
from mailserver.filters.bayes import factory
from mailserver.filters.learnt_commands import in_words
from mailserver.filters.moved_mail import look
from mailserver.interfaces import CannotDo
from mailserver.observe.redaction import Redaction
from mailserver.testing import FilterCase, FilterContract
from mailserver.trust.tokens import reduced
from tests.filters.mail_corpus import Corpus

DAY = 86_400.0
ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.org"


class BayesCase(FilterCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(1_700_000_000.0)
        self.corpus = Corpus(1)
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)

    def services_for(self, name: str) -> Services:
        keys = os.path.join(self.folder, "keys")
        return replace(super().services_for(name), data_directory=self.folder, keys_directory=keys, name="bayes")

    def made(self, **options: Any) -> Any:
        options = {"minimum": 5, **options}
        component = self.build(factory, **options)
        self.answer(component.start())
        self.addCleanup(lambda: self.answer(component.stop()))
        return component

    def taught(self, component: Any, kind: str, messages: list[bytes], user: str = "") -> dict[str, int]:
        key = component._learnt.key
        found = [reduced(one, key)[0] for one in messages]
        command = next(one for one in component.commands() if one.name == "learn")
        came: dict[str, int] = self.answer(command.run(kind=kind, messages=in_words(found), user=user))
        return came

    def both_taught(self, component: Any, count: int, user: str = "", corpus: Corpus | None = None) -> None:
        for kind in ("spam", "ham"):
            self.taught(component, kind, [(corpus or self.corpus).message(kind) for _ in range(count)], user)

    def found(self, component: Any, message: bytes, recipient: str = ALICE, **peer: Any) -> Finding | None:
        self._n = getattr(self, "_n", 0) + 1
        envelope = replace(self.envelope(peer=self.peer(**peer)), id=f"M{self._n}")
        return self.finding_of(component.judge_content_for(envelope, self.content(message), self.recipient(recipient)))

    def finding_of(self, asked: Any) -> Finding | None:
        verdict = self.judge(asked)
        self.assertIs(type(verdict), Pass)
        self.assertLessEqual(len(verdict.findings), 1)
        return verdict.findings[0] if verdict.findings else None

    def probability(self, component: Any, message: bytes, recipient: str = ALICE) -> float:
        found = self.found(component, message, recipient)
        assert found is not None
        return float(found.properties["probability"])  # type: ignore[arg-type]


class Judging(BayesCase):
    def test_of_a_generated_corpus_few_messages_are_judged_wrong(self) -> None:
        """Four fifths of each message's words are common to both kinds."""
        component = self.made(minimum=100)
        self.both_taught(component, 100)
        wrong = {"spam": 0, "ham": 0}
        for kind in wrong:
            for _ in range(200):
                score = self.found(component, self.corpus.message(kind))
                assert score is not None
                wrong[kind] += score.score <= 0 if kind == "spam" else score.score > 0
        self.assertLessEqual(wrong["spam"], 4)  # 2 %
        self.assertLessEqual(wrong["ham"], 1)

    def test_below_the_minimum_of_either_kind_nothing_is_said(self) -> None:
        component = self.made(minimum=20)
        self.assertIsNone(self.found(component, self.corpus.message("spam")))
        self.taught(component, "spam", [self.corpus.message("spam") for _ in range(40)])
        self.taught(component, "ham", [self.corpus.message("ham") for _ in range(19)])
        self.assertIsNone(self.found(component, self.corpus.message("spam")))
        self.taught(component, "ham", [self.corpus.message("ham")])
        self.assertIsNotNone(self.found(component, self.corpus.message("spam")))

    def test_where_too_little_was_learnt_by_all_together_no_thread_is_asked_until_more_is(self) -> None:
        component = self.made(minimum=20)
        asked: list[object] = []
        run = component._learnt._reading.run

        def counted(function: Any, *arguments: Any) -> Any:
            asked.append(function)
            return run(function, *arguments)

        self.patch(component._learnt._reading, "run", counted)
        for _ in range(3):
            self.assertIsNone(self.found(component, self.corpus.message("spam")))
        self.assertEqual(len(asked), 2)  # once, and whether it is worth it
        for who in ("", ALICE):  # neither has enough alone
            self.both_taught(component, 10, who)
        self.assertIsNotNone(self.found(component, self.corpus.message("spam")))
        self.assertIsNone(self.found(component, self.corpus.message("spam"), "bob@example.org"))
        self.assertIsNotNone(self.found(component, self.corpus.message("spam")))

    def test_what_was_looked_up_is_remembered_until_something_is_learnt(self) -> None:
        component = self.made(minimum=20)
        self.both_taught(component, 20)
        self.both_taught(component, 20, ALICE)
        asked: list[list[str] | None] = []
        looked_up = component._learnt._look_up

        def counted(questions: Any) -> Any:
            asked.extend([None if one.tokens is None else list(one.tokens) for one in questions])
            return looked_up(questions)

        component._learnt._together._answer = counted
        message = self.corpus.message("spam")
        first = {user: self.found(component, message, user) for user in (ALICE, BOB)}
        self.assertEqual(len(asked), 2)
        self.assertNotEqual(first[ALICE], first[BOB])
        self.assertEqual({user: self.found(component, message, user) for user in (ALICE, BOB)}, first)
        self.assertEqual(len(asked), 2)
        self.found(component, message + b"xylophone\r\n")
        self.assertEqual(asked[2:], [["xylophone"]])
        for _ in range(3):
            self.taught(component, "spam", [self.corpus.message("spam", more=["xylophone"], words=5)])
        self.answer(component.run_periodically())
        again = self.found(component, message + b"xylophone\r\n", BOB)
        assert again is not None
        self.assertIn("xylophone", again.evidence)
        self.assertEqual(again.properties["spam"], 23)

    def test_what_is_learnt_while_others_are_looked_up_is_not_mixed_with_what_was_remembered(self) -> None:
        component = self.made(minimum=20)
        self.both_taught(component, 20)
        message = self.corpus.message("spam")
        self.found(component, message)
        looked_up, rounds = component._learnt._look_up, []

        def learns_meanwhile(questions: Any) -> Any:
            rounds.append([one.tokens for one in questions])
            if len(rounds) == 1:
                self.taught(component, "spam", [self.corpus.message("spam")])
            return looked_up(questions)

        component._learnt._together._answer = learns_meanwhile
        found = self.found(component, message + b"xylophone\r\n")
        assert found is not None
        self.assertEqual(rounds, [[["xylophone"]], [None]])
        self.assertEqual(found.properties["spam"], 21)

    def test_the_memory_is_bounded(self) -> None:
        self.patch(token_memory, "TOKENS_MOST", 500)
        self.patch(token_memory, "OWNERS_MOST", 5)
        component = self.made(minimum=20)
        self.both_taught(component, 20)
        memory = component._learnt._memory
        for n in range(20):
            self.found(component, self.corpus.message("ham", words=100), f"user{n}@example.org")
            self.assertLessEqual(len(memory._strengths.get(0, {})), 500)
            self.assertLessEqual(len(memory._whose), 6)
        self.assertTrue(memory._strengths[0])

    def test_the_finding_names_the_ten_tokens_that_said_the_most(self) -> None:
        component = self.made()
        self.taught(component, "spam", [b"Message-ID: <%d@a>\r\nSubject: win\r\n\r\ncasino bonus \xe2\x80\xaeevil\r\n" % n for n in range(30)])
        self.taught(component, "ham", [b"Message-ID: <%d@b>\r\nSubject: minutes\r\n\r\nmeeting agenda\r\n" % n for n in range(30)])
        found = self.found(component, b"Subject: win\r\n\r\ncasino bonus \xe2\x80\xaeevil\r\n")
        assert found is not None
        self.assertEqual((found.name, found.properties["result"], found.properties["of"]), ("bayes", "spam", "site"))
        self.assertEqual((found.properties["spam"], found.properties["ham"]), (30, 30))
        self.assertGreater(found.score, 6.0)
        self.assertRegex(found.evidence, r"^1\.000 by 30 spam and 30 ham of the site; most of \d+: .*casino 0\.99\d, .*subject:win 0\.99\d")
        self.assertNotIn("\u202e", found.evidence)
        unsure = self.found(component, b"Subject: other\r\n\r\nwords\r\n")
        assert unsure is not None
        self.assertEqual((unsure.score, unsure.properties["result"]), (0.0, "unsure"))
        silent = self.made(words=False)
        found = self.found(silent, b"Subject: win\r\n\r\ncasino bonus\r\n")
        assert found is not None
        self.assertNotIn("casino", found.evidence)
        self.assertRegex(found.evidence, "^1\\.000 by 30 spam and 30 ham of the site$")

    def test_three_recipients_each_are_judged_by_what_they_have_learnt_themselves(self) -> None:
        component = self.made(minimum=20)
        self.both_taught(component, 60)
        topic = ["lottery", "jackpot", "numbers", "drawing", "ticket", "winner", "saturday", "million"]

        def about_it() -> bytes:
            return self.corpus.message("ham", more=topic, overlap=1.0, words=40)

        before = {user: self.probability(component, about_it(), user) for user in (ALICE, BOB, CAROL)}
        self.taught(component, "spam", [about_it() for _ in range(15)], ALICE)
        self.taught(component, "ham", [about_it() for _ in range(15)], BOB)
        message = self.content(about_it())
        envelope = self.envelope(recipients=(ALICE, BOB, CAROL))
        found = {
            user: self.finding_of(component.judge_content_for(envelope, message, self.recipient(user)))
            for user in (ALICE, BOB, CAROL)
        }
        results = {user: one.properties["of"] for user, one in found.items() if one is not None}
        self.assertEqual(results, {ALICE: "user", BOB: "user", CAROL: "site"})
        values = {user: float(one.properties["probability"]) for user, one in found.items() if one is not None}  # type: ignore[arg-type]
        self.assertGreater(values[ALICE], 0.9)
        self.assertLess(values[BOB], 0.2)
        self.assertTrue(0.2 < values[CAROL] < 0.9, values)
        self.assertEqual(self.probability(component, message.data or b"", CAROL), values[CAROL])
        self.assertTrue(all(0.2 < one < 0.9 for one in before.values()), before)
        evidence = {user: one.evidence for user, one in found.items() if one is not None}
        self.assertIn(f"of {ALICE} and the site", evidence[ALICE])
        self.assertNotIn(ALICE, evidence[BOB] + evidence[CAROL])
        self.assertNotIn(BOB, evidence[ALICE] + evidence[CAROL])

    def test_a_detail_in_the_address_is_the_user_s(self) -> None:
        component = self.made()
        self.both_taught(component, 10, ALICE)
        for recipient in (ALICE, "Alice+shop@EXAMPLE.org"):
            self.assertIsNotNone(self.found(component, self.corpus.message("spam"), recipient))
        for recipient in (BOB, "alice@example.net", "alic@example.org"):
            self.assertIsNone(self.found(component, self.corpus.message("spam"), recipient))

    def test_a_path_without_a_domain_makes_the_user_s_name_the_owner(self) -> None:
        component = self.made(maildirs="{data}/mail/{user}")
        self.both_taught(component, 10, "alice")
        self.assertIsNotNone(self.found(component, self.corpus.message("spam"), ALICE))
        self.assertIsNone(self.found(component, self.corpus.message("spam"), BOB))

    def test_addresses_among_the_tokens_are_redacted_as_the_log_says(self) -> None:
        component = self.made()
        for kind, sender in (("spam", "eve@evil.example"), ("ham", "bob@good.example")):
            self.taught(component, kind, [f"Message-ID: <{n}@x>\r\nFrom: {sender}\r\n\r\n{kind} words\r\n".encode() for n in range(9)])
        found = self.found(component, b"From: Eve <eve@evil.example>\r\n\r\nspam words\r\n", CAROL)
        assert found is not None
        self.assertIn("from:eve@evil.example 0.9", found.evidence)
        for setting, words in (("none", "from:* 0.9"), ("domain", "from:*@evil.example 0.9")):
            told = Redaction(setting).fields({"findings": [f"bayes 6.5: {found.evidence}"]})  # type: ignore[arg-type]
            self.assertIn(words, str(told["findings"]))
            self.assertNotIn("eve@", str(told["findings"]))

    def test_users_who_log_in_are_not_judged(self) -> None:
        component = self.made()
        self.both_taught(component, 10)
        self.assertIsNone(self.found(component, self.corpus.message("spam"), login=ALICE))

    def test_a_long_message_in_a_file_is_judged_by_its_start(self) -> None:
        component = self.made()
        self.both_taught(component, 20)
        path = os.path.join(self.folder, "long")
        octets = self.corpus.message("spam", words=3000, overlap=0.3) + b"x" * 5_000_000
        with open(path, "wb") as file:
            file.write(octets)
        content = type(self.content(b"x")).at(path, len(octets))
        found = self.finding_of(component.judge_content_for(self.envelope(), content, self.recipient(ALICE)))
        assert found is not None
        self.assertEqual(found.properties["result"], "spam")

    def test_it_keeps_the_contract_of_filters(self) -> None:
        component = self.made()
        self.both_taught(component, 10)
        judging = self.configured(component)
        verdict = judging.content_for(self.envelope(), self.content(self.corpus.message("spam")), self.recipient(ALICE))
        self.assertEqual([one.name for one in verdict.findings], ["bayes"])


class Learning(BayesCase):
    def test_what_was_learnt_outlives_a_restart(self) -> None:
        component = self.made()
        self.both_taught(component, 10)
        message = self.corpus.message("spam")
        before = self.probability(component, message)
        self.answer(component.stop())
        self.assertEqual(self.probability(self.made(), message), before)

    def test_a_message_counts_once_and_can_be_taken_back(self) -> None:
        component = self.made()
        messages = [self.corpus.message("spam") for _ in range(3)]
        self.assertEqual(self.taught(component, "spam", messages), {"new": 3})
        self.assertEqual(self.taught(component, "spam", messages), {"known": 3})
        self.assertEqual(self.taught(component, "ham", messages[:1]), {"moved": 1})
        self.assertEqual(self.taught(component, "forget", messages), {"forgotten": 3})
        self.assertEqual(self.taught(component, "forget", messages), {"unknown": 3})

    def test_what_is_no_message_is_refused(self) -> None:
        component = self.made()
        learn, show, forget = component.commands()
        for text in ("", "{}", "[[1]]", '[["00", "AA==", ""]]', '[["' + "00" * 16 + '", "!", ""]]', "[" * 10_000, "[" + "0," * 200 + "0]"):
            self.assertRaises(CannotDo, self.answer, learn.run(kind="spam", messages=text))
        self.assertRaises(CannotDo, self.answer, learn.run(kind="spam", messages="[]", user="a b@@c"))
        self.assertRaises(CannotDo, self.answer, forget.run(user="nobody@example.org"))
        self.taught(component, "spam", [self.corpus.message("spam")], ALICE)
        rows = self.answer(show.run())
        self.assertEqual([(one["owner"], one["spam"], one["ham"]) for one in rows], [(ALICE, 1, 0)])
        self.assertIn(ALICE, self.answer(forget.run(user=ALICE)))
        self.assertEqual(self.answer(show.run()), [])

    def test_over_a_reload_the_former_filter_and_the_new_one_learn_into_one_file(self) -> None:
        former = self.made()
        self.both_taught(former, 10)
        new = self.made(spam=5.0)
        for component in (former, new, former):
            self.taught(component, "spam", [self.corpus.message("spam") for _ in range(5)])
        self.assertEqual(self.answer(new.commands()[1].run())[0]["spam"], 25)
        self.answer(former.stop())
        found = self.found(new, self.corpus.message("spam"))
        assert found is not None
        self.assertEqual(found.properties["spam"], 25)

    def test_no_word_of_a_message_is_in_the_file(self) -> None:
        component = self.made()
        self.taught(component, "spam", [b"Subject: verysecretsubject\r\n\r\nverysecretword\r\n"], ALICE)
        self.answer(component.stop())
        octets = b"".join([path.read_bytes() for path in Path(self.folder).glob("bayes.db*")])
        self.assertNotIn(b"verysecret", octets)
        self.assertNotEqual(octets, b"")

    def test_what_nobody_has_learnt_for_long_is_forgotten(self) -> None:
        component = self.made(expire="10d")
        self.both_taught(component, 10)
        for _ in range(12 * 24):
            self.clock.advance(DAY / 24)
            self.answer(component.run_periodically())
        (row,) = self.answer(component.commands()[1].run())
        self.assertEqual(row["tokens"], 0)

    def test_on_a_disk_without_room_nothing_is_learnt_and_judging_goes_on(self) -> None:
        component = self.made()
        self.both_taught(component, 10)
        component._learnt._room_for = lambda octets: False
        with self.assertRaisesRegex(CannotDo, "too little room"):
            self.taught(component, "spam", [self.corpus.message("spam")])
        self.probability(component, self.corpus.message("spam"))
        component._learnt._room_for = lambda octets: True

        def full(*arguments: Any, **named: Any) -> None:
            raise StorageFull("no room")

        self.patch(component._learnt._writer, "learn", full)
        with self.assertRaisesRegex(CannotDo, "no room"):
            self.taught(component, "spam", [self.corpus.message("spam")])
        self.probability(component, self.corpus.message("spam"))


class Damage(BayesCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.folder, "bayes.db")
        component = self.made()
        self.both_taught(component, 30)
        self.answer(component.stop())
        self.message = self.corpus.message("spam")

    def assertSilent(self, component: Any) -> None:
        found = self.found(component, self.message)
        assert found is not None
        self.assertEqual((found.score, found.properties["result"]), (0.0, "temperror"))
        self.assertEqual(component.counts()["readable"], 0)

    def test_a_damaged_file_stops_neither_the_start_nor_mail(self) -> None:
        whole = Path(self.path).read_bytes()
        for octets in (whole[: len(whole) // 2], b"rubbish" * 5000, whole[:4096] + os.urandom(len(whole) - 4096)):
            Path(self.path).write_bytes(octets)
            component = self.made()
            self.assertSilent(component)
            self.answer(component.run_periodically())
            self.assertSilent(component)
            self.assertEqual(Path(self.path).read_bytes(), octets)
            Path(self.path).unlink()
            Path(self.path).write_bytes(whole)
            self.answer(component.run_periodically())
            self.assertIsNotNone(self.found(component, self.message))
            self.assertEqual(component.counts()["readable"], 1)
            self.answer(component.stop())

    def test_an_emptied_or_deleted_file_is_one_that_has_learnt_nothing(self) -> None:
        for spoil in (lambda: Path(self.path).write_bytes(b""), lambda: Path(self.path).unlink()):
            spoil()
            component = self.made()
            self.assertIsNone(self.found(component, self.message))
            self.both_taught(component, 10)
            self.assertIsNotNone(self.found(component, self.message))
            self.answer(component.stop())

    def test_a_file_that_goes_away_under_the_server_is_opened_anew(self) -> None:
        component = self.made()
        self.assertIsNotNone(self.found(component, self.message))
        for name in ("bayes.db", "bayes.db-wal", "bayes.db-shm"):
            Path(self.folder, name).unlink(missing_ok=True)
        self.answer(component.run_periodically())
        self.assertIsNone(self.found(component, self.message))
        self.both_taught(component, 10)
        self.assertTrue(os.path.exists(self.path))

    def test_damage_that_is_met_while_it_is_read_is_told_and_mail_goes_on(self) -> None:
        component = self.made()

        def damaged(*arguments: Any) -> None:
            raise apsw.CorruptError("malformed")

        self.patch(component._learnt._reader, "_connection", type("Broken", (), {"execute": damaged, "close": damaged})())
        self.assertSilent(component)
        self.answer(component.run_periodically())
        self.assertIsNotNone(self.found(component, self.message))

    def test_a_disk_that_does_not_answer_costs_the_score_alone(self) -> None:
        component = self.made()

        def hang(*arguments: Any) -> None:
            raise AllHang("each thread hangs")

        for threads in (component._learnt._reading, component._learnt._writing):
            self.patch(threads, "run", hang)
        found = self.found(component, self.message)
        assert found is not None
        self.assertEqual((found.score, found.properties["result"]), (0.0, "temperror"))
        with self.assertRaisesRegex(CannotDo, "does not answer"):
            self.taught(component, "spam", [self.message])

    def test_damage_that_is_met_while_something_is_learnt_is_told_and_the_file_is_opened_anew(self) -> None:
        component = self.made()

        def damaged(*arguments: Any, **named: Any) -> None:
            raise StorageDamaged("malformed")

        self.patch(component._learnt._writer, "learn", damaged)
        with self.assertRaisesRegex(CannotDo, "malformed"):
            self.taught(component, "spam", [self.corpus.message("spam")])
        self.assertSilent(component)
        self.answer(component.run_periodically())
        self.assertEqual(self.taught(component, "spam", [self.corpus.message("spam")])["new"], 1)

    def test_another_key_or_none_that_can_be_read_is_told(self) -> None:
        key = Path(self.folder, "keys", "bayes.key")
        kept = key.read_bytes()
        for spoilt in (b"0" * 64 + b"\n", b"", b"\xff" * 64):
            key.unlink()
            key.write_bytes(spoilt)
            component = self.made()
            self.assertSilent(component)
            self.assertIn("key", component._learnt.fault)
            with self.assertRaisesRegex(CannotDo, "key"):
                self.answer(component.commands()[1].run())
            key.write_bytes(kept)
            self.answer(component.run_periodically())
            self.assertIsNotNone(self.found(component, self.message))
            self.answer(component.stop())
        key.unlink()
        component = self.made()  # which makes one, that fits nothing
        self.assertSilent(component)


class MovedMail(BayesCase):
    def setUp(self) -> None:
        super().setUp()
        self.inbox = Path(self.folder, "mail", "example.org", "alice")
        for folder in ("", ".Junk"):
            for part in ("new", "cur", "tmp"):
                (self.inbox / folder / part).mkdir(parents=True)

    def put(self, name: str, folder: str, message: bytes) -> None:
        path = self.inbox / folder / "cur" / name
        path.write_bytes(message.replace(b"\r\n", b"\n"))
        then = self.clock.seconds() - 3600
        os.utime(path, (then, then))

    def sweep(self, component: Any) -> None:
        self.clock.advance(60)
        self.answer(component.run_periodically())

    def test_what_a_user_moves_is_learnt_for_him_alone(self) -> None:
        component = self.made(minimum=5)
        for n in range(7):
            self.put(f"s{n}", "", self.corpus.message("spam"))
            self.put(f"h{n}", ".Junk", self.corpus.message("ham"))
        self.sweep(component)
        for n in range(7):
            (self.inbox / "cur" / f"s{n}").rename(self.inbox / ".Junk" / "cur" / f"s{n}:2,S")
        for n in range(5):
            (self.inbox / ".Junk" / "cur" / f"h{n}").rename(self.inbox / "cur" / f"h{n}:2,S")
        self.sweep(component)
        (row,) = self.answer(component.commands()[1].run())
        self.assertEqual((row["owner"], row["spam"], row["ham"]), (ALICE, 7, 5))
        self.assertEqual((component.counts()["moved_spam"], component.counts()["moved_ham"]), (7, 5))
        self.assertIsNotNone(self.found(component, self.corpus.message("spam"), ALICE))
        self.assertIsNone(self.found(component, self.corpus.message("spam"), BOB))

    def test_a_file_that_begins_anew_knows_each_mailbox_after_one_look(self) -> None:
        component = self.made()
        self.put("s", "", self.corpus.message("spam"))
        for _ in range(3):
            self.sweep(component)
        for name in ("bayes.db", "bayes.db-wal", "bayes.db-shm"):
            Path(self.folder, name).unlink(missing_ok=True)
        self.sweep(component)
        (self.inbox / "cur" / "s").rename(self.inbox / ".Junk" / "cur" / "s")
        self.sweep(component)
        self.assertEqual(component.counts()["moved_spam"], 1)

    def test_a_mailbox_is_its_user_s_in_whichever_form_the_path_names_him(self) -> None:
        self.inbox = self.inbox.parent.rename(self.inbox.parent.with_name("B\u00fccher.EXAMPLE")) / "alice"
        self.inbox = self.inbox.rename(self.inbox.with_name("Alice"))
        component = self.made()
        self.put("s", "", self.corpus.message("spam"))
        self.sweep(component)
        (self.inbox / "cur" / "s").rename(self.inbox / ".Junk" / "cur" / "s")
        self.sweep(component)
        (row,) = self.answer(component.commands()[1].run())
        self.assertEqual((row["owner"], row["spam"]), ("alice@xn--bcher-kva.example", 1))
        other = self.inbox.with_name("alice")
        shutil.copytree(self.inbox, other)  # two forms, two mailboxes: what stands in one has not gone from the other
        self.put("t", ".Junk", self.corpus.message("spam"))
        shutil.copy2(self.inbox / ".Junk" / "cur" / "t", other / ".Junk" / "cur" / "u")
        before = component.counts()
        for _ in range(3):
            self.sweep(component)
        (row,) = self.answer(component.commands()[1].run())
        self.assertEqual((row["spam"], row["ham"], component.counts()["moved_ham"]), (2, 0, before["moved_ham"]))

    def test_how_a_mailbox_stood_outlives_a_restart(self) -> None:
        component = self.made()
        self.put("s", "", self.corpus.message("spam"))
        self.sweep(component)
        self.answer(component.stop())
        (self.inbox / "cur" / "s").rename(self.inbox / ".Junk" / "cur" / "s")
        component = self.made()
        self.sweep(component)
        self.assertEqual(component.counts()["moved_spam"], 1)
        self.answer(component.stop())
        component = self.made()
        self.sweep(component)
        self.assertEqual(component.counts()["moved_spam"], 0)

    def test_more_than_fits_into_one_look_is_learnt_by_the_next_ones(self) -> None:
        component = self.made(moves=2)
        others = Path(self.folder, "mail", "example.org", "bob")
        shutil.copytree(self.inbox, others)
        for n in range(5):
            self.put(f"s{n}", "", self.corpus.message("spam"))
        self.sweep(component)
        for n in range(5):
            (self.inbox / "cur" / f"s{n}").rename(self.inbox / ".Junk" / "cur" / f"s{n}")
        learnt = []
        for _ in range(4):
            self.sweep(component)
            learnt.append(component.counts()["moved_spam"])
        self.assertEqual(learnt, [2, 4, 5, 5])

    def test_one_user_who_moves_a_lot_keeps_nobody_waiting(self) -> None:
        component = self.made(moves=2)
        for n in range(9):
            self.put(f"s{n}", "", self.corpus.message("spam"))
        shutil.copytree(self.inbox, self.inbox.with_name("bob"))
        self.sweep(component)
        for user, count in (("alice", 9), ("bob", 1)):
            for n in range(count):
                inbox = self.inbox.with_name(user)
                (inbox / "cur" / f"s{n}").rename(inbox / ".Junk" / "cur" / f"s{n}")
        for _ in range(2):
            self.sweep(component)
        rows = self.answer(component.commands()[1].run())
        self.assertEqual([(one["owner"], one["spam"]) for one in rows], [(ALICE, 3), (BOB, 1)])

    def test_that_nothing_has_changed_outlives_a_restart_too(self) -> None:
        """Else what came meanwhile, and is moved while the server restarts, would look as if the filters had put it into Junk."""
        component = self.made()
        self.sweep(component)
        self.clock.advance(7200)
        self.put("s", "", self.corpus.message("spam"))  # an hour old: after the first look
        for _ in range(20):
            self.sweep(component)
        self.answer(component.stop())
        (self.inbox / "cur" / "s").rename(self.inbox / ".Junk" / "cur" / "s")
        component = self.made()
        self.sweep(component)
        self.assertEqual(component.counts()["moved_spam"], 1)

    def test_a_mailbox_whose_junk_has_not_changed_is_not_listed_again(self) -> None:
        looks: list[str] = []
        listed = moved_mail_sweep.look

        def counting(path: str, *more: Any, **named: Any) -> Any:
            looks.append(os.path.basename(path))
            return listed(path, *more, **named)

        self.patch(moved_mail_sweep, "look", counting)
        for part in ("new", "cur"):
            os.utime(self.inbox / ".Junk" / part, (self.clock.seconds() - 60,) * 2)
        component = self.made()
        for _ in range(3):
            self.sweep(component)
        self.assertEqual(looks, ["alice"])
        for later in (0, 59):  # well before a look, and just before the next one
            os.utime(self.inbox / ".Junk" / "cur", (self.clock.seconds() + later,) * 2)
            self.sweep(component)
        self.assertEqual(looks, ["alice"] * 3)
        self.sweep(component)  # once more: it may have changed again within the same tick
        self.sweep(component)
        self.assertEqual(looks, ["alice"] * 4)

    def test_a_look_that_takes_too_long_goes_on_where_it_was_and_ends_with_the_server(self) -> None:
        looks: list[str] = []
        component = self.made()
        sweep = component._sweep
        for user in ("bob", "carol"):
            shutil.copytree(self.inbox, self.inbox.with_name(user))
        now = [0.0]

        def slow(path: str, junk: str) -> Any:
            looks.append(os.path.basename(path))
            now[0] += 20.0
            return 0, 0

        self.patch(moved_mail_sweep, "mark_of", slow)
        sweep._steady_seconds = lambda: now[0]
        for _ in range(3):
            self.answer(sweep.run())
        self.assertEqual(looks, ["alice", "bob", "carol", "alice", "bob", "carol"])
        sweep.stop()
        self.answer(sweep.run())
        self.assertEqual(len(looks), 6)

    def test_what_keeps_a_mailbox_from_being_read_is_told_once_until_it_can_be_read(self) -> None:
        component = self.made()
        told: list[str] = []
        component._sweep.log = type("Log", (), {"warn": lambda _, *words, **facts: told.append(str(facts)), "info": lambda *_, **__: None})()
        self.inbox.chmod(0o700)
        junk = self.inbox / ".Junk"
        for _ in range(2):
            self.patch(moved_mail_sweep, "look", self.refuse)
            for _ in range(3):
                self.sweep(component)
            self.patch(moved_mail_sweep, "look", look)
            (junk / "new" / "x").touch()
            self.sweep(component)
            (junk / "new" / "x").unlink()
        self.assertEqual(len(told), 2)
        self.assertIn("Permission denied", told[0])

    def refuse(self, path: str, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", path)

    def test_one_mailbox_that_cannot_be_read_keeps_nobody_else_from_learning(self) -> None:
        component = self.made()
        for user in ("aaron", "zoe"):
            (Path(self.folder, "mail", "example.org", user)).mkdir()
            Path(self.folder, "mail", "example.org", user, ".Junk").write_bytes(b"no folder")
        self.put("s", "", self.corpus.message("spam"))
        real = os.open

        def refusing(path: Any, *more: Any, **named: Any) -> int:
            if str(path).endswith(("aaron", "zoe")):
                raise PermissionError(13, "Permission denied", path)
            return real(path, *more, **named)

        self.patch(os, "open", refusing)
        with capturedLogs() as told:
            self.sweep(component)
            (self.inbox / "cur" / "s").rename(self.inbox / ".Junk" / "cur" / "s")
            self.sweep(component)
        named = [event["path"] for event in told if "what was moved is not learnt" in (event["log_format"] or "")]
        self.assertEqual(sorted(path.rpartition("/")[2] for path in named), ["aaron", "zoe"], "each once")
        self.assertEqual(component.counts()["moved_spam"], 1)

    def test_where_nothing_can_be_learnt_it_is_learnt_later(self) -> None:
        component = self.made()
        self.put("s", "", self.corpus.message("spam"))
        self.sweep(component)
        (self.inbox / "cur" / "s").rename(self.inbox / ".Junk" / "cur" / "s")
        component._learnt._room_for = lambda octets: False
        self.sweep(component)
        self.assertEqual(component.counts()["moved_spam"], 0)
        component._learnt._room_for = lambda octets: True
        self.sweep(component)
        self.assertEqual(component.counts()["moved_spam"], 1)

    def test_homes_of_the_host_s_users_are_not_looked_into(self) -> None:
        component = self.made(maildirs="{home}/Maildir")
        self.sweep(component)
        self.assertNotIn("moved_spam", component.counts())
        for wrong in ("mail/alice", "{data}/mail"):
            self.assertRaises(ConfigurationError, self.build, factory, maildirs=wrong)


class Contract(FilterContract, BayesCase):
    def make(self) -> Any:
        return self.made()
