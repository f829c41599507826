"""The network of strictly confined workers: an HTTP proxy that lets through what the session's policy allows.

requests   the head of a client's request, and of a server's response: parsed, checked, written anew
bodies     what follows the head of a plain request: exactly its body, and nothing behind it
addresses  names are looked up here, once; what is not public is refused unless a rule names it
streams    sockets: bytes in both directions, with back-pressure, half-closing and a count
proxy      one worker's proxy: takes connections, decides, connects, carries, and says what became of each
thread     the one thread and event loop on which all proxies of the program run, while there is one
serving    a worker's proxy from its `ready` to its end, whose connections are announced on the session's loop
"""
