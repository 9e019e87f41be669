"""SMTP and LMTP without I/O, a library of its own: octets in, events out.  Neither Twisted nor zope, no socket, no clock.

In the order in which they are read:

* `grammar`: the syntax of command lines, each production above the pattern that translates it
* `replies`: the one catalogue of replies
* `events`: what a peer did, as values
* `faults`: what goes wrong on our own side of a session
* `server`: the server's side of SMTP and LMTP, without I/O: octets in, events out, answers in, octets out
* `client`: the client's side of SMTP and LMTP, without I/O: octets in, events out, requests in, octets out
* `buffer`: octets received and not yet used, and the lines in them
* `client_auth`: a client's log-in (RFC 4954): the words around a SASL exchange, whose content is the caller's
* `client_content`: content on its way out: DATA with its dots and its end, or the one chunk of a BDAT
* `client_dialogue`: what was said on a connection, for people: commands and replies, without content and without
  secrets
* `client_events`: what a client session tells its caller, as values
* `client_limits`: how much a client takes from its peer, and how long it waits for it
* `client_offer`: what a peer offers in its answer to EHLO or LHLO (RFC 5321 section 4.1.1.1)
* `client_replies`: replies as a peer says them, read with bounds
* `client_request`: what a caller wants sent, held against what the peer offers, and the commands that say it
* `client_states`: a client's conversation: its states, what moves it, and the table of legal moves
* `client_transaction`: one request on its way: who has an outcome, who is being asked about, who comes later
* `commands`: the arguments of the commands (RFC 5321 section 4.1.1 and the extensions' own RFCs)
* `data`: the content of a message on the wire: DATA with its dots and its end, BDAT with its counts
* `extensions`: what a server offers, and how EHLO and LHLO announce it (RFC 5321 section 4.1.1.1)
* `limits`: how much a session takes from its peer
* `parameters`: the parameters of MAIL and RCPT (RFC 5321 section 4.1.2; each keyword's own RFC is named at its
  function)
* `refusals`: what a server's session answers by itself to lines that are none, and to commands that may not come now
* `states`: the conversation: its states, what moves it, and the table of legal moves
* `transaction`: one message from MAIL to its end, and the octets of a message that nobody wants
"""
