"""Mail for other hosts: where it goes, over which connections, how, with what outcome.

In the order in which they are read:

* `delivery`: the relay as a delivery: a message's destinations, by hosts, over the pool
* `route_settings`: a route as the relay follows it: hosts, how they are connected to, when it is tried again
* `route_maker`: makes the routes of a configuration, and keeps what a reload must not lose
* `route_facts`: what a route says, for people
* `client_certificate`: the certificate that we show to a host that asks for one
* `own_ipv6`: whether our own IPv6 address has a reverse name that leads back to it
* `probing`: asks a host up to RCPT and sends no message
* `attempts`: before an attempt: those who may say no, change the message for one destination, name the hosts
* `forwards`: mail that an alias sends on: with which sender, and how it is kept from going round
* `return_paths`: the return paths of such mail, made and opened (`mailserver.trust.srs`)
* `hosts`: where a domain's mail goes: hosts and addresses in their order (RFC 5321 section 5.1)
* `tlsa`: what the DNS says about a host's certificates, where it is secure (RFC 7672 section 2.2)
* `pool`: which transaction goes over which connection: pure, without sockets and without a clock
* `pool_records`: what it keeps of connections and destinations
* `pace`: how fast mail goes to one destination: pure
* `destination_states`: how mail goes to each destination, for people
* `pace_options`: the keys that say so
* `operators`: whose hosts share one pace, and the limits of each destination
* `rate_replies`: which replies ask for a slower pace
* `provider_replies`: what the replies of large operators mean, and what can be done
* `heard_meanings`: those that were heard, for notes to postmaster
* `relay_call`: what has become of a message's destinations, and what is still under way
* `transmission`: one message to one destination: the hosts to try, and what each answer means
* `connections`: opens, uses and closes connections as the pool decides, and goes on to the next host
* `protocol`: one connection to another host: drives a `ClientSession`
* `security`: what a connection to another host must have (DANE, MTA-STS, REQUIRETLS): pure
* `wishes`: what a message says of its encryption itself (RFC 8689)
* `conclusions`: what the beginning of TLS came to, held against that: pure
* `fallbacks`: what is tried after a handshake that failed
* `client_contexts`: how the demands are carried out with OpenSSL
* `login`: how the relay logs in to a smarthost (RFC 4954): with a password, or with a token of OAuth
* `token_answers`: what an issuer of tokens says: pure, RFC 6749 and its neighbours
* `token_issuer`: asks it, over https
* `token_file`: the tokens as a file in the folder of keys, sealed
* `token_keeper`: keeps a token that is good, for all who wait at once
* `sts_fetching`: fetches a domain's MTA-STS policy (RFC 8461)
* `sts_store`: keeps those that are in force, on the disk
* `sts_keeper`: what MTA-STS says about a domain: looked up, fetched, renewed
* `tls_overrides`: what an administrator has said of a domain's TLS, for a time
* `tls_history`: what was seen of other hosts' TLS last
* `explored`: both, with the decision of each host, in plain values for people
* `tls_results`: what of a session a TLS report counts: pure (RFC 8460)
* `streaming`: content on its way to the socket, piece by piece, as fast as the peer reads
* `conversion_forms`: the form in which a host takes a message: as it came, or encoded (RFC 6152, RFC 3030)
* `conversions`: makes those forms: a small message at once, a large one in a thread
* `components`: the relay's two components and their options: ``[relay] use = "mx"`` and ``use = "smarthost"``
* `lmtp`: delivery into a mail store by LMTP (RFC 2033): Dovecot's, Cyrus's, another server of ours
* `library`: the relay for other programs: a few lines to send mail over the pool
"""
