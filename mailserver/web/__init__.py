"""What is served over HTTP to mail programs, other servers and certificate authorities, by a process of its own.

The server loads the first three; the rest is the process's, which alone loads `twisted.web`.

In the order in which they are read:

* `content`: all that the process knows
* `wire`: how the server says it: frames of JSON
* `hand_over`: the server's end: one frame under way at a time, all of it anew to the next process
"""
