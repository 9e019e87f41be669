"""No name that an address or a configuration gives leaves its place."""

from __future__ import annotations

import os.path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.delivery.names import (
    PathTemplate,
    TemplateError,
    encoded_part,
    file_name,
    folder_name,
    host_part,
    marker_in,
    marker_of,
    number_of_mailbox,
    resized,
    sized,
)

hostile = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", ".", "..", "../..", "/", "/etc/passwd", "a/../../b", "%2e%2e", ".hidden", "a\0b", "new", "cur"]),
    st.text(alphabet="./%\\\0 \n\u2028\udc80ä", max_size=12),
)


class EncodedParts(SynchronousTestCase):
    def test_a_plain_name_stays_as_it_is(self) -> None:
        self.assertEqual(encoded_part("alice.smith"), "alice.smith")
        self.assertEqual(encoded_part("jürgen"), "jürgen")

    def test_what_could_lead_elsewhere_is_encoded(self) -> None:
        self.assertEqual(encoded_part("../x"), "%2E.%2Fx")
        self.assertEqual(encoded_part(".ssh"), "%2Essh")
        self.assertEqual(encoded_part("a\0b\r\n"), "a%00b%0D%0A")

    @given(hostile)
    def test_a_part_is_one_component_below_its_directory(self, text: str) -> None:
        part = encoded_part(text)
        self.assertNotIn("/", part)
        self.assertNotIn("\0", part)
        self.assertFalse(part.startswith("."))
        self.assertEqual(os.path.normpath("/root/" + part), "/root/" + part)
        os.fsencode(part)

    @given(hostile, hostile)
    def test_different_names_give_different_parts(self, one: str, other: str) -> None:
        self.assertEqual(encoded_part(one) == encoded_part(other), one == other)


class Templates(SynchronousTestCase):
    def test_the_default_puts_domain_and_user_below_the_data(self) -> None:
        template = PathTemplate("{data}/mail/{domain}/{user}", data_directory="/var/lib/mail/")
        self.assertEqual(template.path(user="alice", domain="example.org"), "/var/lib/mail/mail/example.org/alice")
        self.assertEqual((template.root, template.depth), ("/var/lib/mail/mail", 2))
        self.assertEqual(PathTemplate("/{user}/box/", data_directory="/data").depth, 2)

    def test_a_home_comes_from_the_user_table(self) -> None:
        template = PathTemplate("{home}/Maildir", data_directory="/data")
        self.assertTrue(template.needs_home)
        self.assertEqual(template.path(user="alice", domain="d", home="/home/alice/"), "/home/alice/Maildir")

    def test_a_home_that_is_no_absolute_path_is_refused(self) -> None:
        template = PathTemplate("{home}/Maildir", data_directory="/data")
        for home in ("", "home", "/home/../etc"):
            self.assertRaises(TemplateError, template.path, user="a", domain="d", home=home)

    def test_templates_that_cannot_be_meant_are_refused_with_a_reason(self) -> None:
        for template, reason in (
            ("{data}/mail/{usr}", "none of"),
            ("mail/{user}", "begin with"),
            ("{data}/../{user}", "no place"),
            ("{data}/mail/{domain}", "share one Maildir"),
            ("/srv/{data}/{user}", "only at the beginning"),
        ):
            error = self.assertRaises(TemplateError, PathTemplate, template, data_directory="/data")
            self.assertIn(reason, str(error))

    @given(user=hostile, domain=hostile)
    def test_no_user_and_no_domain_leaves_the_root(self, user: str, domain: str) -> None:
        for text in ("{data}/mail/{domain}/{user}", "/srv/{user}", "/srv/mail-{domain}/x{user}/Maildir"):
            template = PathTemplate(text, data_directory="/data")
            path = template.path(user=user, domain=domain)
            self.assertEqual(os.path.normpath(path), path)
            self.assertTrue(path.startswith(template.root + "/"))
            self.assertEqual(path.count("/"), text.replace("{data}", "/data").count("/"))


class FolderNames(SynchronousTestCase):
    def test_levels_are_joined_with_dots_as_in_maildir_plus_plus(self) -> None:
        self.assertEqual(folder_name(("lists", "python")), ".lists.python")
        self.assertEqual(folder_name(()), "")

    def test_rfc_3501_5_1_3_names_are_in_modified_utf_7(self) -> None:
        self.assertEqual(folder_name(("Entwürfe",)), ".Entw&APw-rfe")
        self.assertEqual(folder_name(("a&b",)), ".a&-b")
        self.assertEqual(folder_name(("台北",)), ".&U,BTFw-")

    @given(st.lists(hostile, min_size=1, max_size=4).map(tuple))
    def test_a_folder_is_one_component_that_is_not_the_parent(self, folder: tuple[str, ...]) -> None:
        name = folder_name(folder)
        self.assertEqual(os.path.normpath("/box/" + name), "/box/" + name)
        self.assertEqual(name.count("."), len(folder))
        self.assertTrue(name.isascii() and name.isprintable())

    @given(st.lists(hostile, max_size=3).map(tuple), st.lists(hostile, max_size=3).map(tuple))
    def test_different_folders_have_different_names(self, one: tuple[str, ...], other: tuple[str, ...]) -> None:
        self.assertEqual(folder_name(one) == folder_name(other), one == other)


class FileNames(SynchronousTestCase):
    def test_a_name_says_the_second_the_message_the_destination_and_the_host(self) -> None:
        self.assertEqual(file_name(1700000000.9, "0AB", 3, "mx.example.org"), "1700000000.0AB_3.mx.example.org")

    def test_the_number_of_a_mailbox_has_at_most_nine_digits_and_stays_what_it_is(self) -> None:
        """Files on people's disks are found again by it."""
        self.assertEqual(number_of_mailbox("alice"), 663_665_735)
        for user in ("", "jürgen", "\udcff", "x" * 100_000):
            self.assertIn(number_of_mailbox(user), range(10**9))

    def test_the_marker_is_found_again_under_flags_and_another_host(self) -> None:
        marker = marker_of("0AB", 3)
        self.assertEqual(marker_in("1700000000.0AB_3.old.example.org:2,FS"), marker)
        self.assertEqual(marker_in("dovecot-uidlist"), "")

    def test_slash_and_colon_in_a_host_are_written_as_the_maildir_rules_say(self) -> None:
        self.assertEqual(host_part("[fe80::1]"), r"[fe80\072\0721]")
        self.assertNotIn("/", host_part("a/b"))

    def test_a_name_has_room_for_everything_whatever_the_host_is_called(self) -> None:
        name = sized(file_name(1700000000.9, "0123456789ABCDEF", 9999, host_part("x" * 253)), 10**12, 10**12)
        self.assertLess(len(f"{name}:2,DFPRST"), 255)

    def test_the_sizes_follow_the_host_and_the_flags_follow_the_sizes(self) -> None:
        name = sized("1700000000.0AB_3.mx.example.org", 123, 130)
        self.assertEqual(name, "1700000000.0AB_3.mx.example.org,S=123,W=130")
        self.assertEqual(marker_in(f"{name}:2,S"), marker_of("0AB", 3))
        self.assertEqual(resized(f"{name}:2,FS", 7, 9), "1700000000.0AB_3.mx.example.org,S=7,W=9:2,FS")

    def test_a_name_without_sizes_stays_as_it_is(self) -> None:
        self.assertEqual(resized("1700000000.0AB_3.mx.example.org:2,FS", 7, 9), "1700000000.0AB_3.mx.example.org:2,FS")
