"""The proxy: what passes, what is refused, how connections end. Hosts are on loopback, named in the rules."""

import asyncio
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address

import anyio
import pytest

from pyrepl3_client._host_rules import Address
from pyrepl3_client._network.addresses import Resolver
from pyrepl3_client._network.proxy import Limits
from pyrepl3_client._network.requests import parse_request
from tests.client.network.live_proxy import BOUND_SECONDS, live_proxy, recording_host

pytestmark = pytest.mark.anyio


async def test_a_tunnel_carries_bytes_both_ways_and_each_end_by_itself() -> None:
    async with recording_host(None) as host, live_proxy(f"127.0.0.1:{host.port}") as proxy:
        with anyio.fail_after(BOUND_SECONDS):
            reader, writer = await proxy.connect()
            # What follows the head at once is the tunnel's.
            writer.write(f"CONNECT 127.0.0.1:{host.port} HTTP/1.1\r\nHost: x\r\n\r\nearly".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(5) == b"early"
            data = bytes(range(256)) * 20_000
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == data
            writer.close()
        served = await proxy.last()
        assert (served.outcome, served.method, served.host, served.port) == (
            "ok",
            "CONNECT",
            "127.0.0.1",
            host.port,
        )
        assert served.sent == served.received == len(data) + 5
        assert bytes(host.arrived[0]) == b"early" + data


async def test_a_name_is_looked_up_and_its_address_connected_to() -> None:
    async with recording_host() as host:
        rules = f"files.example:{host.port}", f"127.0.0.1:{host.port}"
        async with live_proxy(*rules, names={"files.example": ("127.0.0.1",)}) as proxy:
            got = await proxy.ask(f"GET http://Files.Example.:{host.port}/a?b HTTP/1.1\r\n\r\n".encode())
    assert got == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    assert bytes(host.arrived[0]) == (
        f"GET /a?b HTTP/1.1\r\nHost: files.example:{host.port}\r\nConnection: close\r\n\r\n".encode()
    )


async def test_a_plain_request_is_written_anew() -> None:
    async with recording_host() as host, live_proxy(f"127.0.0.1:{host.port}") as proxy:
        await proxy.ask(
            f"POST http://127.0.0.1:{host.port} HTTP/1.1\r\nHost: other.example\r\nX-One:  1 \r\n"
            "Connection: keep-alive, X-Two\r\nX-Two: 2\r\nProxy-Authorization: secret\r\nUpgrade: h2c\r\n"
            "TE: trailers\r\nContent-Length: 4\r\nAccept: */*\r\n\r\nbody"
            "GET http://127.0.0.1/second HTTP/1.1\r\n\r\n".encode()
        )
    assert bytes(host.arrived[0]) == (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{host.port}\r\nX-One: 1\r\nAccept: */*\r\nContent-Length: 4\r\n"
        "Connection: close\r\n\r\nbody".encode()
    )
    assert len(host.arrived) == 1


async def test_chunks_are_written_anew_and_nothing_follows_them() -> None:
    async with recording_host() as host, live_proxy(f"127.0.0.1:{host.port}") as proxy:
        await proxy.ask(
            f"PUT http://127.0.0.1:{host.port}/x HTTP/1.1\r\nTransfer-Encoding: Chunked\r\nTrailer: A\r\n\r\n"
            '004;ext="y"\r\nbody\r\nA\r\n0123456789\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n'.encode()
        )
        assert (await proxy.last()).outcome == "ok"
    assert bytes(host.arrived[0]) == (
        f"PUT /x HTTP/1.1\r\nHost: 127.0.0.1:{host.port}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        "4\r\nbody\r\na\r\n0123456789\r\n0\r\n\r\n".encode()
    )


READ_IN_TWO_WAYS = [
    "GET http://H/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1",
    "GET http://H/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    "GET http://H/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "GET http://H/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked",
    "GET http://H/ HTTP/1.1\r\nTransfer-Encoding: chunked, identity",
    "GET http://H/ HTTP/1.0\r\nTransfer-Encoding: chunked",
    "GET http://H/ HTTP/1.1\r\nContent-Length: +1",
    "GET http://H/ HTTP/1.1\r\nContent-Length: 1,1",
    "GET http://H/ HTTP/1.1\r\nContent-Length: -1",
    "GET http://H/ HTTP/1.1\r\nContent-Length: 0x1",
    "GET http://H/ HTTP/1.1\r\nContent-Length: \u00b2",
    "GET http://H/ HTTP/1.1\r\nContent-Length:",
    "GET http://H/ HTTP/1.1\r\nContent-Length : 1",
    "GET http://H/ HTTP/1.1\r\nA: b\r\n folded: c",
    "GET http://H/ HTTP/1.1\r\n A: b",
    "GET http://H/ HTTP/1.1\r\nA: b\nC: d",
    "GET http://H/ HTTP/1.1\r\nA: b\rC: d",
    "GET http://H/ HTTP/1.1\r\nA: b\0",
    "GET http://H/ HTTP/1.1\r\n: b",
    "GET http://H/ HTTP/1.1\r\nno colon",
    "GET http://H/ HTTP/2.0",
    "GET http://H/ HTTP/1.1 x",
    "GET http://H/",
    "GET  http://H/ HTTP/1.1",
    "GET\thttp://H/ HTTP/1.1",
    "G(T http://H/ HTTP/1.1",
    "GET / HTTP/1.1\r\nHost: H",
    "GET https://H/ HTTP/1.1",
    "GET ftp://H/ HTTP/1.1",
    "GET file:///etc/passwd HTTP/1.1",
    "GET http:///x HTTP/1.1",
    "GET http://user@H/ HTTP/1.1",
    "GET http://H\\@other/ HTTP/1.1",
    "GET http://H/#x HTTP/1.1",
    "GET http://H#@other/ HTTP/1.1",
    "GET http://H/\u00e9 HTTP/1.1",
    "CONNECT H HTTP/1.1\r\nContent-Length: 3",
    "CONNECT 127.0.0.1 HTTP/1.1",
    "CONNECT http://H/ HTTP/1.1",
    "CONNECT H/x HTTP/1.1",
    "CONNECT :80 HTTP/1.1",
    "",
    "\r\nGET http://H/ HTTP/1.1",
]


async def test_what_can_be_read_in_two_ways_is_refused() -> None:
    async with recording_host() as host, live_proxy(f"127.0.0.1:{host.port}") as proxy:
        where = f"127.0.0.1:{host.port}"
        for text in READ_IN_TWO_WAYS:
            head = text.replace("H/", f"{where}/").replace("H ", f"{where} ")
            got = await proxy.ask(f"{head}\r\n\r\n".encode("latin-1"), half_close=True)
            assert got.startswith(b"HTTP/1.1 400 "), (text, got)
            assert (await proxy.last()).outcome == "refused"
        assert host.arrived == []
        # The same without what is wrong with them.
        assert (await proxy.ask(f"GET http://{where}/ HTTP/1.1\r\n\r\n".encode())).startswith(
            b"HTTP/1.1 200 "
        )


@pytest.mark.parametrize(
    "body",
    [
        "x\r\n",
        "-1\r\na",
        "1\r\nab\r\n",
        "1\r\na\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n",
        "\r\n",
        "1" * 2000,
    ],
)
async def test_what_is_no_body_in_chunks_breaks_off(body: str) -> None:
    async with recording_host(None) as host, live_proxy(f"127.0.0.1:{host.port}") as proxy:
        head = f"PUT http://127.0.0.1:{host.port}/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        await proxy.ask((head + body).encode())
        served = await proxy.last()
    assert served.outcome != "ok"
    # No end of a body, so that the host can take nothing for a whole request.
    assert not any(b"\r\n0\r\n\r\n" in data for data in host.arrived)


async def test_a_body_that_ends_early_is_no_whole_request() -> None:
    async with recording_host(None) as host, live_proxy(f"127.0.0.1:{host.port}") as proxy:
        head = f"PUT http://127.0.0.1:{host.port}/ HTTP/1.1\r\nContent-Length: 10\r\n\r\n"
        await proxy.ask((head + "short").encode(), half_close=True)
        served = await proxy.last()
    assert served.outcome == "failed"
    assert "before its body's end" in served.message


async def test_what_no_rule_allows_is_named_with_the_rule_that_would() -> None:
    async with live_proxy("pypi.org:443", "GET plain.example:80") as proxy:
        for asked, rule in (
            ("CONNECT evil.example:443", "evil.example:443"),
            ("CONNECT pypi.org:22", "pypi.org:22"),
            ("CONNECT plain.example:80", "plain.example:80"),
            ("POST http://plain.example/x", "plain.example:80"),
            ("GET http://[2606:4700::1]/", "[2606:4700::1]:80"),
        ):
            got = await proxy.ask(f"{asked} HTTP/1.1\r\n\r\n".encode())
            assert got.startswith(b"HTTP/1.1 403 Forbidden\r\n"), got
            assert f"the rule '{rule}' in SandboxPolicy(hosts=…) would allow it".encode() in got
            served = await proxy.last()
            assert served.outcome == "refused"
            assert served.sent == served.received == 0


@pytest.mark.parametrize(
    "numeral", ["127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1", "0x7f000001", "127.0.0.1.", "[::1%1]"]
)
async def test_numerals_in_odd_forms_are_refused(numeral: str) -> None:
    async with recording_host() as host, live_proxy(f"127.0.0.1:{host.port}", f"*:{host.port}") as proxy:
        got = await proxy.ask(f"CONNECT {numeral}:{host.port} HTTP/1.1\r\n\r\n".encode())
    assert got.startswith(b"HTTP/1.1 400 ")
    assert host.arrived == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "::1", "10.0.0.1", "169.254.169.254"])
async def test_a_name_at_an_address_that_is_not_public_is_refused(address: str) -> None:
    async with recording_host() as host:
        names = {"inside.example": (address,)}
        async with live_proxy(f"*:{host.port}", f"inside.example:{host.port}", names=names) as proxy:
            for target in ("inside.example", f"[{address}]" if ":" in address else address):
                got = await proxy.ask(f"CONNECT {target}:{host.port} HTTP/1.1\r\n\r\n".encode())
                assert got.startswith(b"HTTP/1.1 403 ")
                if target == "inside.example":
                    assert address.encode() not in got  # the code is not told of networks here
                    assert str(ip_address(address)) in (await proxy.last()).message
                else:
                    assert (await proxy.last()).outcome == "refused"
    assert host.arrived == []


async def test_a_name_that_changes_its_address_is_connected_to_at_the_one_that_was_checked() -> None:
    """Rebinding: the first answer is allowed, each later one is not."""
    async with recording_host() as allowed, recording_host(address="127.0.0.3") as forbidden:
        asked: list[str] = []

        async def resolve(name: str, port: int) -> Sequence[Address]:
            asked.append(name)
            return [ip_address("127.0.0.1" if len(asked) % 2 else "127.0.0.3")]

        port = allowed.port
        async with live_proxy(f"turning.example:{port}", f"127.0.0.1:{port}", resolve=resolve) as proxy:
            request = f"GET http://turning.example:{port}/ HTTP/1.1\r\n\r\n".encode()
            assert (await proxy.ask(request)).startswith(b"HTTP/1.1 200 ")
            assert asked == ["turning.example"]  # once for a connection
            assert (await proxy.ask(request)).startswith(b"HTTP/1.1 403 ")
        assert len(allowed.arrived) == 1
        assert forbidden.arrived == []


async def test_of_several_addresses_those_that_may_be_are_tried_in_turn() -> None:
    async with recording_host(address="127.0.0.3") as host:
        names = {"many.example": ("10.0.0.1", "127.0.0.2", "127.0.0.3")}
        rules = f"many.example:{host.port}", f"127.0.0.2:{host.port}", f"127.0.0.3:{host.port}"
        async with live_proxy(*rules, names=names) as proxy:
            got = await proxy.ask(f"GET http://many.example:{host.port}/ HTTP/1.1\r\n\r\n".encode())
    assert got.startswith(b"HTTP/1.1 200 ")


async def test_names_that_are_not_there_and_hosts_that_do_not_listen() -> None:
    async with recording_host() as host:
        port = host.port
    async with live_proxy("*:443", f"127.0.0.1:{port}") as proxy:
        got = await proxy.ask(b"CONNECT nowhere.example:443 HTTP/1.1\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 502 ")
        assert b"nowhere.example" in got
        got = await proxy.ask(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
        assert got.startswith(b"HTTP/1.1 502 ")
        assert b"refused" in got
        assert (await proxy.last()).outcome == (await proxy.last()).outcome == "failed"


async def test_the_programs_own_resolver_answers() -> None:
    resolver = Resolver()
    assert ip_address("127.0.0.1") in await resolver.resolve("localhost", 80)
    with pytest.raises(OSError, match=r"\w"):
        await resolver.resolve("no-such-name.invalid", 80)


async def test_a_head_that_is_too_long_or_too_slow() -> None:
    async with live_proxy("*:443", limits=Limits(head_seconds=0.05)) as proxy:
        got = await proxy.ask(b"GET http://x.example/ HTTP/1.1\r\nA: " + b"a" * 17_000)
        assert got.startswith(b"HTTP/1.1 431 ") or not got  # reset, where more was on its way
        assert "more than 16384 bytes" in (await proxy.last()).message
        assert (await proxy.ask(b"GET http://x.example/ HTTP/1.1\r\n")).startswith(b"HTTP/1.1 408 ")
        assert (await proxy.ask(b"")).startswith(b"HTTP/1.1 408 ")


def test_a_line_of_blanks_is_read_in_one_pass() -> None:
    """All proxies have one thread: what takes the square of a head's length holds all of them up."""
    blanks = b" " * 1_000_000
    head = b"GET http://a.example/ HTTP/1.1\r\nname:" + blanks + b"a" + blanks + b"b" + blanks + b"\r\n\r\n"
    assert parse_request(head).head.count(b"name: a" + blanks + b"b\r\n") == 1


async def test_hosts_that_answer_nothing_and_tunnels_that_stand_still() -> None:
    limits = Limits(idle_seconds=0.05)
    async with recording_host(b"") as host, live_proxy(f"127.0.0.1:{host.port}", limits=limits) as proxy:
        with anyio.fail_after(BOUND_SECONDS):
            reader, writer = await proxy.connect()
            writer.write(f"CONNECT 127.0.0.1:{host.port} HTTP/1.1\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
        assert (await proxy.last()).message == "nothing has moved for 0.05 s"

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.4", host.port)
        async with server, live_proxy(f"127.0.0.4:{host.port}", limits=limits) as other:
            got = await other.ask(f"GET http://127.0.0.4:{host.port}/ HTTP/1.1\r\n\r\n".encode())
            assert got.startswith(b"HTTP/1.1 504 ")
            assert (await other.last()).outcome == "failed"


@pytest.mark.parametrize(
    "response",
    [
        b"no HTTP\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000,
    ],
)
async def test_what_is_no_response_is_not_passed_on(response: bytes) -> None:
    async with recording_host(response) as host, live_proxy(f"127.0.0.1:{host.port}") as proxy:
        got = await proxy.ask(f"GET http://127.0.0.1:{host.port}/ HTTP/1.1\r\n\r\n".encode())
    assert got.startswith(b"HTTP/1.1 502 ")


async def test_responses_in_parts_pass_and_the_connection_is_for_one() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    response = early + b"HTTP/1.1 200 OK\nConnection: keep-alive\nKeep-Alive: 5\nA: b\n\nrest"
    async with recording_host(response) as host, live_proxy(f"127.0.0.1:{host.port}") as proxy:
        got = await proxy.ask(f"GET http://127.0.0.1:{host.port}/ HTTP/1.1\r\n\r\n".encode())
    assert got == (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\nrest"
    )


async def test_a_host_that_never_comes_to_its_response_holds_up_no_other_connection() -> None:
    """It sends informational ones, and as fast as they are read there is always another."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000

    def flood(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            while True:
                connection.sendall(interim)

    def drain(client: socket.socket) -> None:
        with suppress(OSError):
            while client.recv(1 << 20):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        flooding = listener.getsockname()[1]
        hosts = (f"127.0.0.1:{flooding}",)
        async with recording_host() as host, live_proxy(*hosts, f"127.0.0.1:{host.port}") as proxy:
            client = socket.create_connection(("127.0.0.1", proxy.port))
            client.sendall(f"GET http://127.0.0.1:{flooding}/ HTTP/1.1\r\n\r\n".encode())
            threads = [
                threading.Thread(target=flood, args=(listener,)),
                threading.Thread(target=drain, args=(client,)),
            ]
            for thread in threads:
                thread.start()
            for _ in range(20):
                got = await proxy.ask(f"GET http://127.0.0.1:{host.port}/ HTTP/1.1\r\n\r\n".encode())
                assert got.endswith(b"ok")
        with suppress(OSError):  # the proxy has reset it
            client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        client.close()


async def test_a_response_that_breaks_off_does_not_look_whole() -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nthe first half")
        await writer.drain()
        await reader.readexactly(1)
        reset = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.transport.abort()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, live_proxy(f"127.0.0.1:{port}") as proxy:
        with anyio.fail_after(BOUND_SECONDS):
            reader, writer = await proxy.connect()
            writer.write(f"PUT http://127.0.0.1:{port}/ HTTP/1.1\r\nContent-Length: 1\r\n\r\n".encode())
            await reader.readuntil(b"half")
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
        assert (await proxy.last()).outcome == "failed"


async def test_more_connections_than_there_are_places_wait_for_one() -> None:
    limits = Limits(connections=2)
    async with recording_host(None) as host, live_proxy(f"127.0.0.1:{host.port}", limits=limits) as proxy:
        with anyio.fail_after(BOUND_SECONDS):
            tunnels = [await proxy.connect() for _ in range(3)]
            for _, writer in tunnels:
                writer.write(f"CONNECT 127.0.0.1:{host.port} HTTP/1.1\r\n\r\n".encode())
            for reader, _ in tunnels[:2]:
                await reader.readuntil(b"\r\n\r\n")
            waiting = asyncio.create_task(tunnels[2][0].readuntil(b"\r\n\r\n"))
            tunnels[0][1].write(b"x")
            await tunnels[0][0].readexactly(1)
            assert not waiting.done()
            assert host.open == 2
            tunnels[0][1].close()
            await waiting
            for _, writer in tunnels:
                writer.close()


async def test_a_reader_that_does_not_read_holds_its_sender_up() -> None:
    """What is on its way is bounded by sockets and one block, whatever is sent."""
    async with recording_host(None) as host, live_proxy(f"127.0.0.1:{host.port}") as proxy:
        with anyio.fail_after(BOUND_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, limit=1024)
            writer.write(f"CONNECT 127.0.0.1:{host.port} HTTP/1.1\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            block = bytes(1024 * 1024)
            held_up = False
            for _ in range(200):
                writer.write(block)
                with anyio.move_on_after(0.2) as scope:
                    await writer.drain()
                if held_up := scope.cancelled_caught:
                    break
            assert held_up, "200 MB have gone somewhere"
            writer.transport.abort()
        assert (await proxy.last()).outcome == "failed"


async def test_messages_hold_no_control_characters() -> None:
    async with live_proxy("x.example:443") as proxy:
        for head in (
            b"GET \x1b[31mred HTTP/1.1",
            b"G\nT x HTTP/1.1",
            "CONNECT \u202ex:443 HTTP/1.1".encode(),
            b"A: \x07 b",
        ):
            await proxy.ask(head + b"\r\n\r\n", half_close=True)
            served = await proxy.last()
            assert served.message
            assert served.message.isprintable()
            assert f"{served.method}{served.host}".isprintable()
