"""Moving house: what other mail systems have, and what this one hands on.

In the order in which they are read:

* `reckoning`: what became of each setting of a foreign configuration
* `house`: a configuration as it is being put together, and its text in TOML
* `postfix_files`: the text of Postfix's files: parameters, services, tables, aliases
* `postfix_defaults`: defaults of Postfix, for hosts without its ``postconf``
* `postfix_source`: Postfix's configuration on the disk
* `postfix_names`: which domains Postfix takes mail for
* `postfix_aliases`: what its aliases lead to
* `postfix_accounts`: who has mail there, and as whom they may send
* `postfix_domains`: all three as domains of the new configuration
* `postfix_hops`: how Postfix connects to a next hop
* `postfix_routes`: where Postfix sends mail for others
* `postfix_listeners`: its services, and how they listen
* `postfix_networks`: whom it lets relay by the address alone
* `postfix_filters`: what it refuses, and who else judges its mail
* `postfix_known`: parameters of which nothing has to be carried over, and those that have no equal
* `postfix`: a configuration of Postfix as one of ours
* `dovecot_passwd`: Dovecot's passwd-file: who has which password, in which scheme
* `careful`: opens files of others so that no name leads elsewhere or waits; makes new ones whole
* `mail_item`: one message on its way from another mail store into a Maildir of ours
* `maildir_source`: a Maildir with its folders, as another mail system has left it
* `mbox_source`: an mbox file, read in pieces
* `maildir_target`: puts messages into a Maildir of ours, each once
* `export_form`: the portable form of a house: its names, and what is in them
"""
