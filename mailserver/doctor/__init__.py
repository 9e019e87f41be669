"""The DNS doctor: what the DNS has to show for a domain of ours, what it shows, and what has to be done.

Everything decides over what it is shown (`Seen`), without I/O; `asking`, `policy_fetching` and `trying` ask servers.
In the order in which they are read:

* `zone_text`: records as zone text
* `house_facts`: what our house has
* `wanted`: which records the DNS has to show for that
* `own_network`: what this host can reach by itself
* `seen`: what the servers of a zone show
* `findings`: what is thought of a record: a verdict, why, what to put in and what to take out
* `evaluation`: lets those ask who evaluate SPF and DMARC
* `mail_exchangers`: MX
* `host_addresses`: A, AAAA and PTR of our host
* `spf_look_ups`: what an SPF record costs
* `sender_policy`: SPF
* `signing_records`: DKIM
* `dmarc_policy`: DMARC
* `certificate_seen`: the certificate that a host shows
* `policy_seen`: what the host of an MTA-STS policy shows
* `policy_host`: the policy and its certificate
* `transport_policy`: MTA-STS and TLS-RPT
* `host_certificate`: TLSA and CAA
* `client_set_up`: SRV, and the names of the web service
* `zone_health`: the servers of a zone, and its signatures
* `parked_domain`: a domain that sends and takes nothing
* `probe_mail`: a message that is sent to see whether mail arrives
* `relay_shapes`: the ways in which a stranger may try to send mail to others through us
* `trial_findings`: what trials have shown
* `examination`: all of it for a domain
* `messages`: what an answer of a name server says
* `asking`: asks each server of a zone
* `policy_fetching`: fetches the policy at each address of its host
* `configured`: what our house has, by its configuration and its keys
* `trial_facts`: what is tried, by the configuration
* `smtp_talk`: talks to a mail server as a stranger would
* `trying`: tries mail to ourselves, STARTTLS, an open relay, and DNS lists
* `pushing`: puts into a zone what is wanted, by dynamic updates
* `report_evidence`: what reports of others say about a domain
* `clean_days`: how long all has been well, and which policy can be stricter then
* `policy_change`: a policy that has changed under the same id
* `daily`: looks once a day, and tells postmaster what has turned wrong
"""
