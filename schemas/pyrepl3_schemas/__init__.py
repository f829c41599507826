"""The contract between a parent and its workers, as Python.

    messages    every message, as tagged structs          config     limits that travel in `hello`
    codec       messages <-> bytes                        lifecycle  states and their moves
    framing     bytes <-> frame bodies                    errors     who broke the rules, and where
    version     the protocol's number and limits          json_form  messages as JSON
    schema      the language-neutral files beside this package, made from the structs

Depends on the standard library and msgspec alone. `PROTOCOL.md` beside this package says the same
in prose, for a client in another language.
"""
