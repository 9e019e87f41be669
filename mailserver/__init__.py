"""A mail server on Twisted.

A message goes one way: `receive` takes it in, `routing` says where it leads, `queue` makes it durable, `delivery` writes
it into a Maildir or `relay` sends it on.  docs/tour.md goes along; docs/words.md pairs our words with Postfix's and the
RFCs'.

In the order in which they are read:

* `interfaces/`: everything that a plugin author implements, and nothing else
* `mail/`: values and formats, pure: what the parts say to each other
* `smtp/`: SMTP and LMTP without I/O, a library of its own: octets in, events out
* `sasl/`: the exchanges of a login, without I/O (RFC 4422): a mechanism is a generator that reads like its RFC
* `capture/`: SMTP in packets, without I/O: what the octets of a dialogue say, and such octets made
* `config/`: the configuration file: TOML in, typed values or all faults out
* `api`: all that a plugin's author imports, under one version number
* `plugins/`: components: found by interface and name, built, run and ended
* `processes/`: small processes beside the server, those that keep the privileges among them
* `transport/`: what two rooms need of a socket
* `observe/`: what happened: the log, the road of each message, counters, observers
* `state_store/`: small facts that expire, in SQLite: greylists, rates, reputation (`IStateStore`)
* `trust/`: sender authentication: who answers for a message (SPF, DKIM, DMARC)
* `tls/`: TLS of the listeners: certificates on disk, OpenSSL's contexts, and what is known of a connection after its
  handshake
* `fetching/`: fetches by https from hosts that strangers have named
* `metrics/`: figures for monitoring, and the listener that gives them out
* `web/`: what is served over HTTP, by a process of its own
* `traces/`: the roads of messages as traces of OpenTelemetry, read beside the server
* `dns/`: asking the DNS: a stub resolver that leaves recursion and validation to the name servers it is given
* `authentication/`: who may log in: the one way of every service, from a SASL exchange to an account
* `accounts/`: who exists: the directories, each behind `IDirectory`
* `routing/`: where an address leads: domains, aliases, patterns
* `receive/`: from a socket to the queue: one connection, its transactions, the filters that are asked
* `pickup/`: the folder through which programs of this host hand mail over (Postfix: pickup, postdrop)
* `queue/`: the durable queue: a message is in it when its sender has heard 250, until every recipient has its outcome
* `delivery/`: how mail gets to where it leads on this host: Maildirs, commands, nowhere
* `relay/`: mail for other hosts: where it goes, over which connections, how, with what outcome
* `filters/`: the filters that come with the server; each is a plugin like any other
* `sink/`: a mail server that takes every mail and delivers none, for tests of programs that send
* `postmaster/`: notes to postmaster about what is wrong with this server (Postfix: notify_classes)
* `moving/`: what other mail systems have, and what this one hands on
* `control/`: how people ask the running server: a socket in the data folder, and the commands by subject
* `doctor/`: what the DNS has to show for a domain of ours, what it shows, and what has to be done
* `quickstart/`: from nothing to a server: looks, makes, tells, takes back
* `acme/`: certificates from a CA, without anybody's doing
* `assembly/`: joins the parts: what lives as long as the process, and what a reload replaces
* `service`: `twistd mailserver`: its options, and the service that puts all parts together
* `cli/`: the command ``mailserver``
* `testing/`: tests of components without sockets and waiting, and a server that captures mail
* `pytest_plugin`: pytest's fixture `smtp_server`
* `former`: old names of what has moved
"""

from mailserver.former import understand

understand()
