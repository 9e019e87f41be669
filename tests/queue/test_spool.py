import os

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mail.content import Content
from mailserver.queue.spool import Room, Spool


class RoomOnTheDisk(SynchronousTestCase):
    def setUp(self):
        self.now = 100.0
        self.free = 10_000
        self.looks = 0

    def room(self, minimum=1000):
        def free_bytes(directory):
            self.looks += 1
            if self.free is None:
                raise OSError("gone")
            return self.free

        return Room(directory="/x", seconds=lambda: self.now, minimum_free_bytes=minimum, free_bytes=free_bytes)

    def test_the_reserve_is_kept(self):
        room = self.room()
        self.assertTrue(room.holds(9000))
        self.now += 1
        self.assertFalse(room.holds(9001))

    def test_what_was_promised_counts_until_the_next_look(self):
        room = self.room()
        self.assertTrue(room.holds(5000))
        self.assertFalse(room.holds(5000))
        self.assertEqual(self.looks, 1)
        self.now += 1
        self.assertTrue(room.holds(5000))
        self.assertEqual(self.looks, 2)

    def test_a_clock_that_goes_back_does_not_stop_the_looking(self):
        room = self.room()
        room.holds(1)
        self.now -= 50
        room.holds(1)
        self.assertEqual(self.looks, 2)

    def test_a_disk_that_cannot_be_asked_has_no_room(self):
        self.free = None
        self.assertFalse(self.room(0).holds(1))

    def test_after_a_write_found_it_full_the_door_is_shut_for_a_while(self):
        room = self.room()
        room.shut(3)
        self.assertFalse(room.holds(1))
        self.now += 3
        self.assertTrue(room.holds(1))

    def test_a_clock_that_goes_back_does_not_keep_the_door_shut(self):
        self.now = 1e9
        room = self.room()
        room.shut(3)
        self.now -= 86_400
        self.assertTrue(room.holds(1))
        self.assertTrue(room.shut(3), "it was open")

    def test_the_real_disk_answers(self):
        here = os.getcwd()
        self.assertTrue(Room(directory=here, seconds=lambda: 0.0, minimum_free_bytes=0).holds(1))
        self.assertFalse(Room(directory=here, seconds=lambda: 0.0, minimum_free_bytes=1 << 60).holds(1))


class Files(SynchronousTestCase):
    def setUp(self):
        self.spool = Spool(os.path.abspath(self.mktemp()))
        self.spool.create()

    def test_only_its_own_place_is_a_messages_place(self):
        self.assertTrue(self.spool.holds(Content.at(self.spool.path("A"), 1), "A"))
        self.assertFalse(self.spool.holds(Content.at(self.spool.path("B"), 1), "A"))
        self.assertFalse(self.spool.holds(Content.at("/etc/passwd", 1), "A"))
        self.assertFalse(self.spool.holds(Content.of(b"x"), "A"))

    def test_a_file_is_as_it_was_or_has_a_fault(self):
        with open(self.spool.path("A"), "wb") as file:
            file.write(b"12345")
        self.assertIsNone(self.spool.fault("A", 5))
        self.assertIn("5 octets in place of 6", self.spool.fault("A", 6))
        self.assertIn("missing", self.spool.fault("B", 6))

    def test_to_remove_what_is_gone_is_no_error(self):
        self.spool.remove("A")
