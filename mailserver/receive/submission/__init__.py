"""What users may send (RFC 6409).

In the order in which they are read:

* `rules`: what a submission server asks of a message and does for it, beside what holds for every message
* `sender_rights`: whom an account may send as (RFC 6409 section 6.1)
* `allowance`: how much an account may send within an hour and a day: messages, recipients, new recipients
* `usage`: how much an account has sent lately, counted in slots of ten minutes
"""
