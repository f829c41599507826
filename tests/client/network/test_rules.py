"""Rules of hosts: what they mean, and in which forms the same is said."""

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyrepl3_client._host_rules import normal_host, parse_rules
from pyrepl3_client._network.addresses import is_public, is_this_machine, may_be_reached
from pyrepl3_client.config import SandboxPolicy


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("pypi.org", "pypi.org:443"),
        ("PyPI.org.:443", "pypi.org:443"),
        ("*.Example.org", "*.example.org:443"),
        ("*:443", "*:443"),
        ("*", "*:443"),
        ("bücher.example:80", "xn--bcher-kva.example:80"),
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("10.0.0.0/8", "10.0.0.0/8:443"),
        ("[::1]", "[::1]:443"),
        ("[FD00::0001]:80", "[fd00::1]:80"),
        ("[fd00::/8]:443", "[fd00::/8]:443"),
        ("GET,HEAD example.org", "GET,HEAD example.org:80"),
        ("GET,GET example.org:8080", "GET example.org:8080"),
        ("a_b.example", "a_b.example:443"),
    ],
)
def test_a_rule_has_one_normal_form(written: str, normal: str) -> None:
    assert SandboxPolicy(hosts=(written,)).hosts == (normal,)
    assert SandboxPolicy(hosts=(normal,)).hosts == (normal,)


NO_RULES = [
    "", ":443", "x:0", "x:65536", "x:y", "x:\uff14\uff14\uff13", "http://x", "x/", "u@x", "a b", "a..b",
    "-a", "a-", "x" * 64, ".".join(["x" * 60] * 5), "*.*.b", "a.*", "**", "*.10.0.0.1", "127.1", "0x7f.1",
    "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.", "1.2.3.256", "10.0.0.1/8", "[::1", "::1",
    "::1:80", "fd00::/8", "[10.0.0.0/8]", "[fe80::1%eth0]", "fe80::1%1", "CONNECT x:1", "get x", "GET, x",
    "GET  x", "straße.example", "a\n.example", "x\0", "x:443 ",
]  # fmt: skip


def test_what_is_no_rule_is_refused() -> None:
    for wrong in NO_RULES:
        with pytest.raises(ValueError, match="hosts holds"):
            SandboxPolicy(hosts=(wrong,))


@pytest.mark.parametrize(
    ("rule", "host", "port", "method", "allowed"),
    [
        ("pypi.org:443", "pypi.org", 443, "CONNECT", True),
        ("pypi.org:443", "pypi.org", 443, "GET", True),
        ("pypi.org:443", "pypi.org", 80, "GET", False),
        ("pypi.org:443", "x.pypi.org", 443, "CONNECT", False),
        ("pypi.org:443", "xpypi.org", 443, "CONNECT", False),
        ("*.pypi.org:443", "x.y.pypi.org", 443, "CONNECT", True),
        ("*.pypi.org:443", "pypi.org", 443, "CONNECT", False),
        ("*.pypi.org:443", "xpypi.org", 443, "CONNECT", False),
        ("*:443", "anything.example", 443, "CONNECT", True),
        ("*:443", "anything.example", 80, "GET", False),
        ("GET example.org:80", "example.org", 80, "GET", True),
        ("GET example.org:80", "example.org", 80, "get", False),
        ("GET example.org:80", "example.org", 80, "POST", False),
        ("GET example.org:80", "example.org", 80, "CONNECT", False),
    ],
)
def test_what_a_rule_allows(rule: str, host: str, port: int, method: str, allowed: bool) -> None:
    (parsed,) = parse_rules("hosts", (rule,))
    assert parsed.allows(host, port, method) is allowed


def test_addresses_in_rules() -> None:
    (one, everything) = parse_rules("hosts", ("10.0.0.0/8:80", "*:80"))
    assert one.allows(ip_address("10.1.2.3"), 80, "GET")
    assert not one.allows(ip_address("11.1.2.3"), 80, "GET")
    assert not one.allows("ten.example", 80, "GET")
    # A name for all hosts lets an address pass, which must be public then.
    assert everything.allows(ip_address("10.1.2.3"), 80, "GET")
    assert not everything.names(ip_address("10.1.2.3"), 80, "GET")


def test_an_address_is_named_for_the_methods_of_its_rule_alone() -> None:
    """Whatever another rule allows at all names, one of which may be that address's."""
    rules = parse_rules("hosts", ("GET 10.0.0.0/8:80", "*:80"))
    address = ip_address("10.1.2.3")
    assert may_be_reached(address, 80, "GET", rules)
    for method in "POST", "CONNECT":
        assert not may_be_reached(address, 80, method, rules)


def test_ports_are_rules_for_any_public_host() -> None:
    policy = SandboxPolicy(tcp_ports=(443, 80), hosts=("*:443", "x:1"))
    assert [str(rule) for rule in policy.host_rules] == ["*:443", "x:1", "*:80"]
    assert not SandboxPolicy().host_rules


NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::",
    "::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::8.8.8.8", "64:ff9b::808:808", "64:ff9b:1::1", "100::1",
    "2001::1", "2001:0:1234::", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::",
    "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fe80::1", "fec0::1", "ff02::1",
]  # fmt: skip


def test_what_is_not_public_is_not_reached_unless_it_is_named() -> None:
    for text in NOT_PUBLIC:
        address = ip_address(text)
        assert not is_public(address), text
        assert not may_be_reached(address, 443, "CONNECT", parse_rules("hosts", ("*:443",))), text
        shown = f"[{text}]" if ":" in text else text
        assert may_be_reached(address, 443, "CONNECT", parse_rules("hosts", (f"{shown}:443",))), text
        assert not may_be_reached(address, 80, "CONNECT", parse_rules("hosts", (f"{shown}:443",))), text


def test_what_is_public_is_reached() -> None:
    for text in "8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1", "2001:4860::8888":
        assert is_public(ip_address(text)), text
        assert may_be_reached(ip_address(text), 443, "CONNECT", ()), text


def test_this_machine_is_known_by_its_addresses() -> None:
    assert is_this_machine(ip_address("127.0.0.1"))
    assert not is_this_machine(ip_address("192.0.2.1"))


def test_an_address_of_one_interface_is_named_by_no_rule() -> None:
    assert not may_be_reached(
        ip_address("fe80::1%2"), 80, "CONNECT", parse_rules("hosts", ("[fe80::/10]:80",))
    )


@given(st.text(alphabet="0123456789abcdefx.xX-_:[]%/@ \0\n*", max_size=30))
@example("0x7f.0.0.1")
@example("1e3")
@example("a.0x")
def test_a_name_has_one_form_or_none(text: str) -> None:
    try:
        found = normal_host(text)
    except ValueError:
        return
    again = normal_host(f"[{found}]" if ":" in str(found) else str(found))
    assert again == found
    if isinstance(found, str):
        assert found == found.lower()
        assert set(found) <= set("0123456789abcdefx.-_")
        last = found.split(".")[-1]
        assert not last.isdigit()
        assert not last.startswith("0x") or not set(last[2:]) <= set("0123456789abcdef")
