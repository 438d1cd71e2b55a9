"""A URL of somebody else's leads to the open internet, or to a host that the operator named."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmartifacts.errors import InvalidInput, NotAllowed
from llmartifacts.outbound.addresses import Allowed

NOBODY = Allowed()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "198.18.0.1",
        "192.0.0.192",
        "::",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "fec0::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "2001:0:808:808::1",
        "nonsense",
        "",
    ],
)
def test_private_special_and_transition_addresses_are_refused(address: str) -> None:
    with pytest.raises(NotAllowed) as caught:
        NOBODY.check("files.example.org", address)
    assert not address or address not in caught.value.message


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_of_the_open_internet_are_taken(address: str) -> None:
    NOBODY.check("files.example.org", address)


@pytest.mark.parametrize("host", ["files.corp.example", "FILES.corp.example.", "a.store.corp.example"])
def test_a_host_that_is_named_may_lie_in_a_private_network(host: str) -> None:
    allowed = Allowed.of(["files.corp.example", "*.store.corp.example"])
    for address in ("10.1.2.3", "127.0.0.1", "fc00::1", "::ffff:10.1.2.3"):
        allowed.check(host, address)


@pytest.mark.parametrize(
    "host", ["corp.example", "xfiles.corp.example", "store.corp.example", "files.corp.example.evil.example"]
)
def test_a_host_beside_one_that_is_named_is_none(host: str) -> None:
    with pytest.raises(NotAllowed):
        Allowed.of(["files.corp.example", "*.store.corp.example"]).check(host, "10.1.2.3")


def test_where_clouds_hand_out_credentials_is_closed_to_a_name_whatever_it_is() -> None:
    allowed = Allowed.of(["files.corp.example"])
    for address in ("169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "0.0.0.0"):
        with pytest.raises(NotAllowed):
            allowed.check("files.corp.example", address)


def test_a_network_is_open_as_it_is_written() -> None:
    allowed = Allowed.of(["10.1.0.0/16", "fd12::/16", "192.0.2.7"])
    for address in ("10.1.2.3", "fd12::1", "192.0.2.7", "::ffff:10.1.2.3"):
        allowed.check("whatever.example", address)
    for address in ("10.2.0.1", "fd13::1", "192.0.2.8"):
        with pytest.raises(NotAllowed):
            allowed.check("whatever.example", address)


@pytest.mark.parametrize(
    "entry", ["", "*", "https://a.example", "a b", "10.1.2.3/8", "1.2.3", "a..b", "*.*.example", "ä.de"]
)
def test_an_entry_that_is_neither_a_host_nor_a_network_is_refused(entry: str) -> None:
    with pytest.raises(InvalidInput):
        Allowed.of([entry])


def test_the_environment_names_them_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Allowed.from_environment() == Allowed()
    monkeypatch.setenv("LLMARTIFACTS_ALLOW_HOSTS", " files.corp.example ,10.0.0.0/8,, ")
    assert Allowed.from_environment() == Allowed.of(["files.corp.example", "10.0.0.0/8"])
    monkeypatch.setenv("LLMARTIFACTS_ALLOW_HOSTS", "http://x")
    with pytest.raises(InvalidInput, match="LLMARTIFACTS_ALLOW_HOSTS"):
        Allowed.from_environment()


@given(st.ip_addresses())
def test_what_is_not_global_is_refused_however_it_is_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address.is_private or address.is_link_local or address.is_loopback or address.is_multicast:
        forms = [str(address)]
        if isinstance(address, ipaddress.IPv4Address):
            forms += [f"::ffff:{address}", f"::{address}", str(ipaddress.IPv6Address(0x64FF9B << 96 | int(address)))]
        for form in forms:
            with pytest.raises(NotAllowed):
                NOBODY.check("files.example.org", form)
