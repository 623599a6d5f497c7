"""host:port, as the settings name other processes."""

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_FORM = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})")
"""An IPv6 address is in brackets."""


def host_and_port(address: str) -> tuple[str, int]:
    """The host, without brackets, and the port. Raises ValueError, as pydantic has it told."""
    found = _FORM.fullmatch(address)
    if found is None or not 0 < int(found[3]) < 65_536:
        raise PydanticCustomError("host_port", "is not host:port; write for example 10.0.0.7:8201")
    return found[1] or found[2], int(found[3])


def _checked(address: str) -> str:
    host_and_port(address)
    return address


HostPort = Annotated[str, AfterValidator(_checked)]
