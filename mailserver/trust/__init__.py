"""Sender authentication: who answers for a message.  The DNS is asked through `IResolver` alone.

In the order in which they are read:

* `tag_list`: the tag=value lists of DKIM, DMARC and ARC (RFC 6376 section 3.2)
* `canonical`: header fields and bodies in the forms that are signed (RFC 6376 section 3.4)
* `dkim_signature`: a DKIM-Signature field, read and written (RFC 6376 section 3.5)
* `dkim_key`: a public key in the DNS (RFC 6376 section 3.6.1), and a private one
* `signing_keys`: the keys with which the mail of our domains is signed, on the disk
* `dkim`: verifies the signatures of a message, and signs one
* `foreign_results`: what another host says that it has found, read (RFC 8601)
* `arc`: verifies the chain of hosts that had a message in their hands (RFC 8617)
* `spf_record`: an SPF record, read, and its macros (RFC 7208)
* `spf`: whether a host may send for a domain
* `tokens`: what of a message counts when its content is weighed, as keyed hashes
* `bayes`: how likely a message is spam, from how often its words stood in spam and in ham
* `reputation`: what is thought of a network or a domain by what came of its mail
* `secret_key`: a key of this installation that nobody chooses
* `chain`: a chain of certificates: what stands in them, and whether it is valid up to a trust anchor (RFC 5280)
* `dane`: what the TLSA records of a host say about its certificates (RFC 7672)
* `srs`: return paths for mail that is forwarded (SRS)
* `srs_keys`: the keys of these, on the disk
* `dns_lists`: the names that DNS lists are asked for, and their answers (RFC 5782)
* `hello`: what is wrong with the name that a client gives (RFC 5321 section 4.1.1.1)
* `authors`: the domains of a message's authors
* `dmarc_record`: a DMARC policy record, read (RFC 9989)
* `dmarc`: whether an author's domain answers for a message
* `dmarc_report`: an aggregate report about a domain, and its XML (RFC 9990)
* `dmarc_report_mail`: such a report as a message, and where it goes
* `packed_reports`: what reports of strangers are packed in
* `dmarc_report_reading`: one of others, read out of a message
* `tls_result`: how the beginning of TLS with another host came out, as reports count it (RFC 8460)
* `tls_report`: a report about the TLS of a domain's hosts, its JSON, and who wants it (RFC 8460)
* `tls_report_mail`: such a report as a message
* `tls_report_reading`: one of others, read out of a message
* `mta_sts`: a policy of MTA-STS: which mail exchangers a domain has, and that they use TLS (RFC 8461)
* `arf`: complaints about mail (RFC 5965)
* `authentication_results`: the fields that say what was found (RFC 8601)
* `weighing`: adds up what was found, says what that leads to, and what would have led elsewhere
"""
