"""One worker as its session uses it, from the handshake to its exit.

handle          handshake, routes of its messages, exit report, end
requests        requests with one answer each: ping, inspect, checkpoint parts
transfers       requests by kind, with bodies of any size
message_guard   refuses what a worker must not send
tree_limits     memory and CPU limits of its whole process tree
death_cause     the likely cause of its death, in words
"""
