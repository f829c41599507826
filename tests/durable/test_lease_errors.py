"""What a store's errors about a session's owner say to a person."""

import os
import socket

from pyrepl3_client.durable.lease.owner import current_owner
from pyrepl3_client.errors import LeaseLost, SessionBusy


def test_a_lost_lease_says_which_process_has_the_session_since_when_and_what_to_do() -> None:
    owner = current_owner()
    text = str(LeaseLost("s", owner, 1_700_000_000_000))
    assert f"session 's' belongs to process {os.getpid()} on {socket.gethostname()} since 2023-11-1" in text
    assert "close it there and open the session again" in text
    assert owner not in text
    assert "given up again" in str(LeaseLost("s", None))


def test_a_busy_session_names_its_owner_in_words() -> None:
    text = str(SessionBusy("s", current_owner(), 1_700_000_000_000, 3.0))
    assert f"is owned by process {os.getpid()} on {socket.gethostname()}, whose lease lapses in 3.0 s" in text
