"""Mail for other hosts: where it goes, over which connections, how, with what outcome.

In the order in which they are read:

* `delivery`: the relay as a delivery: a message's destinations, by hosts, over the pool
* `hosts`: where a domain's mail goes: hosts with their addresses, in the order in which they are tried (RFC 5321
  section 5.1)
* `pool`: which transaction goes over which connection: pure, without sockets and without a clock
* `transmission`: one message on its way to one destination: the hosts to try, and what an ended transaction means for
  it
* `connections`: Opens, uses and closes connections as the pool decides, and finds the next host for what could not be
  sent
* `protocol`: one connection to another host: octets in, events out of the SMTP client core, one write for all that is
  ready
* `security`: how connections to other hosts are encrypted (RFC 3207)
* `login`: how the relay logs in to a smarthost (RFC 4954)
* `streaming`: content on its way to the socket: piece by piece, as fast as the other side reads
* `conversion_forms`: the form in which a message goes to a host: as it came, or encoded for what the host takes (RFC
  6152, RFC 3030)
* `conversions`: makes the forms of messages for hosts that do not take them as they are: at once for a small message,
  else in a thread
* `components`: the relay's two components and their options: ``[relay] use = "mx"`` and ``use = "smarthost"``
* `lmtp`: mail into a mail store beside this server, by LMTP (RFC 2033): Dovecot's, Cyrus's, another server of our own
* `library`: the relay for programs that are no mail server: a few lines to send mail over the pool
"""
