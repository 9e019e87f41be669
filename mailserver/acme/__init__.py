"""Certificates from a CA by ACME (RFC 8555), without anybody's doing.

In the order in which they are read:

* `service`: looks at each certificate once a minute, has a thread get what is due, tells postmaster
* `visit`: one look at one certificate: is it due, and if it is, get it
* `schedule`: when a certificate is due, when a failure is tried again, when it is worth a word
* `progress`: what is known of one certificate between tries, on the disk
* `settings`: what the configuration says
* `web_names`: which names the certificate of the web listener is for
* `next_key`: whether a key may be taken into use, by what the DNS shows of it
* `allowance`: the time that a try has
* `authority`: a CA: its directory, our account there, signed requests
* `order`: one order, from its beginning, or from wherever it was left, to the certificate
* `challenge`: what a CA asks us to show, and who shows it
* `answers`: the ways in which it is shown: by a folder, in the reactor
* `own_listeners`: our own listeners for the time of an order
* `alpn_certificate`: the certificate by which tls-alpn-01 shows that a name is ours
* `zone_answers`: dns-01, by dynamic updates
* `challenge_server`: the web listener, as far as certificates need it

Whoever has no certificates from a CA loads the first seven alone, and with these neither the ACME library nor what it needs.
"""
