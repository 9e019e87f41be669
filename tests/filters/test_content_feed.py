"""A message on its way to a scanner: as fast as that takes it, and no faster."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailserver.filters.content_feed import PIECE_OCTETS, ContentFeed
from mailserver.mail.content import Content


class Consumer:
    """Wants a halt after each write, if it is told so."""

    def __init__(self, feed: ContentFeed, *, halts: bool) -> None:
        self.written: list[bytes] = []
        self.feed = feed
        self.halts = halts

    def write(self, octets: bytes) -> None:
        self.written.append(octets)
        if self.halts:
            self.feed.pauseProducing()


class Threads:
    """The thread's work is done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Any, tuple[Any, ...]]] = []

    def run(self, function: Any, *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, function, arguments))
        return done

    def work(self) -> None:
        done, function, arguments = self.waiting.pop()
        done.callback(function(*arguments))


class Feed(TestCase):
    def setUp(self) -> None:
        self.threads = Threads()

    def begun(self, content: Content, *, halts: bool, **more: Any) -> tuple[ContentFeed, Consumer, Deferred[None]]:
        feed = ContentFeed(content, run_in_thread=self.threads.run, **more)  # type: ignore[arg-type]
        consumer = Consumer(feed, halts=halts)
        return feed, consumer, feed.startProducing(consumer)

    def in_file(self, octets: int) -> Content:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"x" * octets)
        return Content.at(path, octets)

    def test_no_more_is_written_than_is_wanted(self) -> None:
        content = Content.of(b"x" * (PIECE_OCTETS * 2 + 1))
        feed, consumer, done = self.begun(content, halts=True)
        for count in (1, 2, 3):
            self.assertEqual((len(consumer.written), done.called), (count, count == 3))
            feed.resumeProducing()
        self.assertEqual(b"".join(consumer.written), content.data)

    def test_a_file_is_read_in_a_thread_and_only_when_there_is_room(self) -> None:
        feed, consumer, done = self.begun(self.in_file(PIECE_OCTETS + 10), halts=True)
        self.assertEqual(consumer.written, [])
        self.threads.work()
        self.assertEqual([len(one) for one in consumer.written], [PIECE_OCTETS])
        self.threads.work()
        self.assertEqual((len(consumer.written), self.threads.waiting), (1, []))
        feed.resumeProducing()
        self.assertEqual([len(one) for one in consumer.written], [PIECE_OCTETS, 10])
        self.threads.work()
        self.assertTrue(done.called)

    def test_one_that_is_stopped_writes_nothing_more_wherever_it_was(self) -> None:
        feed, consumer, done = self.begun(Content.of(b"x" * (PIECE_OCTETS * 3)), halts=True)
        feed.stopProducing()
        self.assertEqual((len(consumer.written), done.called), (1, True))
        feed, consumer, done = self.begun(self.in_file(10), halts=False)
        feed.stopProducing()
        self.assertFalse(done.called)
        self.threads.work()
        self.assertEqual((consumer.written, done.called), ([], True))

    def test_each_piece_is_framed(self) -> None:
        _, consumer, done = self.begun(Content.of(b"ab", prefix=b"c"), halts=False, frame=lambda piece: (b"<", piece, b">"))
        self.assertEqual((b"".join(consumer.written), done.called), (b"<c><ab>", True))
