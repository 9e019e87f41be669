"""Values and formats, pure: what the parts say to each other.  No I/O but for files of a message, neither Twisted nor zope.

In the order in which they are read:

* `reply`: what a server says: a code, an enhanced status code and lines of text
* `address`: mail addresses: local part and domain (RFC 5321 section 4.1.2; RFC 6531 section 3.3)
* `envelope`: who is connected, who sends, who shall receive: the envelope of RFC 5321 section 2.3.1
* `headers`: header fields that keep their bytes (RFC 5322 section 2.2)
* `content`: the immutable octets of a message, in memory or in a file
* `source`: a message's octets by place: all in memory, or in a file that is read in blocks
* `answers`: the answers that parts give each other: a filter's verdict, a recipient's route, an attempt's outcome
* `parcel`: what a delivery is handed: one message and the destinations that it serves
* `outcomes`: a delivery's answer made sound, in one place: what a plugin returns goes into the store, into reports and
  into the log
* `edits`: what a modifier may ask for, and how the edits of a header section are made
* `ids`: message ids: sixteen letters and digits that sort by time
* `trace`: trace fields: Received, Return-Path, Delivered-To (RFC 5321 section 4.4)
* `report`: delivery status notifications: what became of a message, told to its sender
* `faults`: expected failures of storage, as the door must tell them to the peer
* `networks`: which addresses belong together, and sets of networks
* `cached`: an attribute that is worked out when it is first asked for
* `completion`: what a submission server adds to a message that lacks it (RFC 6409 section 8)
* `display_names`: from fields as mail programs write them, made into what RFC 5322 can hold (sections 3.2.5 and 3.4)
* `dns_records`: what a resolver is asked and what it answers
* `durable`: making names durable: a file that was synced can still lose its name with the power
* `eight_bit`: content made fit for a channel that does not carry all octets: by part, with quoted-printable or base64
  (RFC 2045 section 6)
* `envelope_codec`: an envelope and its destinations as octets, for a store
* `long_lines`: lines that are longer than mail may have them (RFC 5322 section 2.1.1: 998 octets), encoded away where
  mail is handed in
* `mending`: header sections that are not quite what RFC 5322 wants, as many programs write them: made into what their
  authors meant
* `mime_parts`: the parts of a message, as ranges of its octets (RFC 2045, RFC 2046)
* `originators`: who a message says that it is from: the From and Sender fields (RFC 5322 section 3.6.2), read strictly
* `quick`: frozen values that are made quickly
* `recent_tags`: who was met lately: a bounded set of short tags with the day of the last time, in one run of octets
* `until`: moments of a clock that people and time servers set
"""
