import pytest

from infra.host_port import host_and_port


@pytest.mark.parametrize(
    ("address", "parts"),
    [("10.0.0.7:8201", ("10.0.0.7", 8201)), ("leaf-1.local:1", ("leaf-1.local", 1)), ("[::1]:65535", ("::1", 65535))],
)
def test_a_host_and_its_port(address: str, parts: tuple[str, int]) -> None:
    assert host_and_port(address) == parts


@pytest.mark.parametrize(
    "address",
    ["", "localhost", "host:", ":80", "host:0", "host:65536", "host:x", "host:٣", "a b:1", "http://host:80", "::1:80"],
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        host_and_port(address)
