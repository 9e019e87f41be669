"""The exchanges of a login, without I/O (RFC 4422): a mechanism is a generator that reads like its RFC.

In the order in which they are read:

* `steps`: what a SASL exchange wants next, as values (RFC 4422)
* `exchange`: one exchange, from the server's side: responses in, steps out (RFC 4422 section 3)
* `exchanges`: the mechanisms: what each needs, and which are offered
* `plain`: PLAIN (RFC 4616): everything in one message
* `login`: LOGIN (draft-murchison-sasl-login, never an RFC): two prompts
* `cram_md5`: CRAM-MD5 (RFC 2195): a keyed hash of a challenge
* `scram`: SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677): both ends prove that they know the password, and
  nobody shows it
* `scram_keys`: what a server keeps for SCRAM-SHA-256 in place of a password (RFC 5802 section 3), and its text form
  (RFC 5803)
* `saslprep`: SASLprep (RFC 4013): one form for what people type as user names and passwords
* `external`: EXTERNAL (RFC 4422 appendix A): the client is whom its TLS certificate stands for
* `client`: SASL from the client's side: SCRAM-SHA-256 (RFC 7677), PLAIN (RFC 4616), LOGIN and CRAM-MD5 (RFC 2195)
* `oauth`: the same with a token: OAUTHBEARER (RFC 7628) and XOAUTH2
* `faults`: errors of a caller that misuses an exchange
"""
