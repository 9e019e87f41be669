"""What users may send (RFC 6409).

In the order in which they are read:

* `rules`: what a submission server asks of a message and does for it (RFC 6409), beside what holds for every message
* `sender_rights`: whom an account may send as (RFC 6409 section 6.1)
* `allowance`: how much an account may send: messages, recipients and new recipients, within an hour and within a day
* `usage`: how much an account has sent lately: pure counting in slots of ten minutes
"""
