"""From nothing to a server: ``mailserver quickstart you@example.org``.

Looks first whether mail can go and come from here, then makes a configuration, keys, the first account, the unit; a ledger on the
disk says what was made, so that it can be completed after a kill, and taken back.  In the order in which they are read:

* `wishes`: what is asked for
* `configuration_text`: the configuration, out of the sample that everybody gets
* `system_files`: the unit and the system user, out of those of ``etc/``
* `verdicts`: what a look before the start has found
* `what_is_seen`: what every look is shown
* `eyes`: what is looked with: name servers, other hosts, ports, disk, clock
* `host_sightings`: the host's name, its ports, disk and clock
* `domain_age`: how old a domain is, as its registry says
* `network_sightings`: the resolver, addresses and their names, port 25, lists
* `preflight`: all these looks, side by side
* `ledger`: what was made and what is about to be, on the disk
* `steps`: a step: a folder, a file
* `own_steps`: the system user, the keys, the certificate, the first account
* `plan`: which steps there are, and what forbids them
* `carrying_out`: takes the steps, and takes them back
* `told`: what a person is told at the end: password, settings, records, the next command
"""
