"""The contract between a client and its workers, as Python.

messages       every message, as tagged structs       executor_config  limits that travel in `hello`
codec          messages <-> bytes                     lifecycle        states, and the moves between them
framing        bytes <-> frame bodies                 errors           who broke the protocol, and where
object_limit   how many objects a frame may become    field_types      bounded strings and numbers
constants      the protocol's number and limits       confinement      what a worker is confined to
head_tail      long texts: head, tail, and a marker   fork_server      messages to a fork server
reserved_names what no host function may be called      transfer         bodies in chunks
large_values   values of any size, as bodies           display_budget   how much rich data there may be
config, version  public aliases

Depends on the standard library and msgspec alone. `PROTOCOL.md` beside this package says the same in prose,
for a client in another language; `tools/` makes the JSON Schema and the vectors.
"""
