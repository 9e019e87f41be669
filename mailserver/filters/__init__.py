"""The filters that come with the server; each is a plugin like any other.

In the order in which they are read:

* `denylist`: refuses or defers peers by network or HELO name, senders by address or domain
* `dnsbl`: asks DNS lists about peers and the names that they give (RFC 5782)
* `peer_rules`: looks at a peer's name in the DNS, the name that it gives, and whether it encrypts
* `greylist`: asks doubtful strangers to come again (RFC 6647)
* `evidence`: who a message says it is from, and what shows that
* `followed_names`: whose name has become which: users with their details, domains with all that is in them
* `followed_records`: records of users that follow when accounts are renamed or removed
* `list_entries`: an entry of the lists, and how it stands in the records
* `list_table`: all entries in memory: which speak of a message, and which decides
* `list_book`: the same in the records
* `list_commands`: what people may do with them
* `lists`: white, black and grey lists of the site, of domains and of users
* `asked_together`: questions to a thread that are answered together
* `work_beside`: work on messages that a process does while many come
* `token_memory`: what was learnt of tokens, looked up for several messages at once and remembered
* `opinions`: what that says of messages, here or in a process
* `learnt`: what was learnt of messages, opened: the file, its key, and what it says of a message
* `learnt_commands`: what people may do with it
* `moved_mail`: looks through Maildirs for what users have moved into Junk and out of it
* `moved_mail_sweep`: the looks through all mailboxes, from time to time
* `bayes`: judges by what the site and each user have learnt
* `contact_records`: a user's contacts, rules, expected mail: how each stands in the records
* `contact_book`: the same in the records and in memory
* `contact_claims`: whom a message claims to be from, and which contact that would be
* `contact_decisions`: what a user decides, and what becomes of the mail that is held for him
* `contact_tokens`: one-time reply addresses
* `contact_digest`: the message that tells a user what waits
* `contact_replies`: messages to one-time reply addresses
* `contact_rounds`: what is done about held mail from time to time
* `contact_commands`: what people may do with contacts and expected mail
* `contacts`: learns whom users write to, and may hold mail from strangers until they decide
* `account_signals`: the signs that an account was taken over, and when they are enough
* `account_records`: accounts whose sending is stopped: how each stands in the records
* `account_names`: whose mail in the queue is, where accounts were renamed since it came
* `account_sessions`: since when connections send by their logins
* `account_book`: the same in memory and in the records
* `account_memory`: what is known of accounts that send, and what was counted lately
* `account_complaints`: complaints of others about their mail (ARF)
* `account_outcomes`: what comes of it: recipients who do not exist, what other hosts refuse
* `account_notes`: what postmaster and the user are written
* `account_rounds`: what follows: mail in the queue is held or released, people are told
* `account_renames`: what is kept of them follows when they are renamed, and goes when they are removed
* `account_commands`: what people may do with them
* `account_guard`: stops the sending of an account that looks as if others had taken it over
* `reputation_book`: what came of the mail of networks and domains, in the state store
* `reputation`: judges by it
* `subaddress_book`: subaddresses that users have given to somebody, in the records
* `subaddress_commands`: what people may do with them
* `subaddresses`: who writes to one that was given to somebody else; those that are closed are refused
* `suppression_book`: addresses that an account writes to no more, in the records
* `suppression_commands`: what people may do with them
* `suppression`: refuses them at RCPT, and learns from what their hosts say
* `scores`: adds up the scores of what the others have found: a tag, Junk, held, later or no, by thresholds
* `spf`: asks whether the peer may send for the domain (RFC 7208)
* `signed_content`: what has to be known to verify signatures: the body's hashes, and keys
* `dkim`: verifies DKIM signatures (RFC 6376)
* `arc`: verifies ARC chains, and says what trusted sealers had found (RFC 8617)
* `dmarc`: judges by what the author's domain asks for (RFC 9989)
* `report_days`: the days that are over, and the reports that are due about them
* `sent_reports`: what has become of those that were sent
* `received_reports`: those of others, as they are kept
* `reporting`: what the two filters share that send reports and read those of others
* `report_facts`: what is counted for them by day, as far as it is the same
* `report_sending`: what sends their reports, as far as it is the same
* `report_commands`: what their commands share
* `report_inbox`: the mail for an address of reports: what of it is read, and what is not
* `dmarc_facts`: what it has found, counted for the reports
* `dmarc_sending`: sends the reports of the days that are over (RFC 9990)
* `dmarc_report_commands`: what people may see of both
* `dmarc_reports`: sends DMARC reports, and reads those of others
* `tls_report_facts`: how TLS with other hosts came out, counted for the reports
* `tls_report_wishes`: which domains want them
* `tls_report_sending`: sends the reports of the days that are over (RFC 8460)
* `tls_report_commands`: what people may see of TLS reports
* `tls_reports`: sends TLS reports, and reads those of others
* `authentication_results`: writes what these four have found into the message (RFC 8601)
* `dkim_signing`: signs what users, local programs and the server itself send
* `aiosmtpd_handler`: asks a handler that was written for aiosmtpd
* `policy_client`: connections to a policy service
* `policy_delegation`: asks such a service, as Postfix does, and takes its action for a verdict
* `content_feed`: a message on its way to a scanner, never whole in memory
* `taught`: scanners that learn
* `scanner_client`: hands messages to a scanner, with a connection for each
* `clamav`: asks clamd for viruses
* `rspamd_answer`: what rspamd answers, and the edits that it asks for
* `rspamd`: asks rspamd for its judgement
* `spamassassin`: asks spamd for its score
* `milter_wire`: the octets of the milter protocol
* `milter_answers`: what a milter answers
* `milter_dialogue`: the dialogue with one, without I/O
* `milter_macros`: what it is told beside the commands
* `milter_changes`: what it wants to have changed, as edits
* `milter_connection`: connections to it
* `milter_body`: the body that it puts in place of a message's
* `milter_session`: what it is told of one SMTP connection
* `milter`: asks milters
* `list_unsubscribe`: mail of users to many, and whether its readers can unsubscribe with one click (RFC 8058)
* `null_mx`: refuses senders whose domain takes no mail itself (null MX, RFC 7505 section 4.2)
"""
