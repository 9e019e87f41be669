"""Values and formats, pure: what the parts say to each other.  No I/O but for files of a message, neither Twisted nor zope.

In the order in which they are read:

* `reply`: what a server says: a code, an enhanced status code and lines of text
* `address`: mail addresses: local part and domain (RFC 5321 section 4.1.2; RFC 6531 section 3.3)
* `filter_notes`: what filters note for the length of a connection
* `envelope`: who is connected, who sends, who receives (RFC 5321 section 2.3.1)
* `headers`: header fields that keep their bytes (RFC 5322 section 2.2)
* `content`: the immutable octets of a message, in memory or in a file
* `source`: a message's octets by place: all in memory, or in a file that is read in blocks
* `answers`: the answers that parts give each other: a filter's verdict, a recipient's route, an attempt's outcome
* `outbound_answers`: the answers of those who are asked before an attempt, and before a report
* `parcel`: what a delivery is handed: one message and the destinations that it serves
* `tags`: header fields that one recipient's copy gets at local delivery
* `set_apart`: what of an accepted message is not simply delivered: copies that are held, refusals that are reported
* `outcomes`: checks what a plugin's delivery returns before it goes into the store, reports and the log
* `added_header`: a header field that somebody adds: what may be in one, and how it goes out
* `edits`: changes that a modifier may ask for, and how they are made to a header section
* `ids`: message ids: sixteen letters and digits that sort by time
* `trace`: trace fields: Received, Return-Path, Delivered-To (RFC 5321 section 4.4)
* `report`: delivery status notifications: what became of a message, told to its sender
* `faults`: expected failures of storage
* `networks`: which addresses belong together, and sets of networks
* `until`: deadlines on the wall clock, which people and time servers set
* `quick`: frozen values that are made quickly
* `cached`: an attribute that is computed once
* `json_text`: JSON as text, for what is written with each message
* `durable`: syncs the names of files, which a synced file can still lose
* `dns_road`: the roads that have no message: what the DNS has said of a name
* `fetched`: what was fetched from a web server
* `process_failure`: what a call in another process has come to where it came to nothing
* `known_sender`: whether a sender may be told what became of a message that was answered with 250
* `held_copy`: a copy that a verdict holds, for those who decide about it
* `reverse_names`: the names of an address that the DNS confirms
* `recent_tags`: a bounded set of short tags with the day of the last time
* `dns_records`: a resolver's questions and answers
* `envelope_codec`: an envelope and its destinations as octets, for a store
* `route_map`: which of several ways mail takes, by its recipient's domain and its sender
* `signatures`: which header fields a message's signatures cover, and which are ours (RFC 6376 section 3.5)
* `mime_parts`: the parts of a message, as ranges of its octets (RFC 2045, RFC 2046)
* `message_parts`: the parts of a message for those who look into it: decoded as they are read
* `eight_bit`: 8-bit content encoded by part, with quoted-printable or base64 (RFC 2045 section 6)
* `own_results`: takes away Authentication-Results with our name that came from elsewhere (RFC 8601 section 5)
* `long_lines`: lines above 998 octets, encoded (RFC 5322 section 2.1.1)
* `mending`: header sections that are nearly valid, made valid
* `display_names`: From fields as mail programs write them, made valid (RFC 5322 sections 3.2.5 and 3.4)
* `originators`: who a message says that it is from: the From and Sender fields (RFC 5322 section 3.6.2), read strictly
* `completion`: adds what a submitted message lacks (RFC 6409 section 8)
"""
