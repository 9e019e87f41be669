"""Small processes beside the server, those that keep the privileges among them.

In the order in which they are read:

* `small`: the server's small processes: who starts them, and what is known of them
* `spawning`: modules of ours that run as programs beside the server
* `version`: what this program is, as it stands on the disk at this moment
* `frames`: frames on a Unix stream socket: four octets of length, then that many; with the first octet may travel
  descriptors
* `exchange`: questions to a process beside us, and its answers, over a socket that the reactor serves: no thread waits
  for them
* `kept`: the server's end of a small process that is kept running: one that has died is replaced
* `watching`: the reactor's eye on the small processes: a death is told at once, and a successor started though nobody
  asks for it
* `answer`: an answer that is on its way from another process
* `privileged`: what the small processes that keep the privileges have in common: how they take requests, and become
  others
* `root`: the root process: all that keeps root's privileges where the server gives them up, and it does next to nothing
* `root_link`: the server's end of the root process (`root`)
* `binding`: Addresses, bound and not listened on yet
* `bound`: listening on addresses that were bound before: by ourselves while we were root, by the root process at a
  reload, by systemd
* `identity`: root acts as somebody else for a while, where what it opens lies in that user's hand
* `unix_port`: taking the connections of a Unix socket that somebody else has bound
"""
