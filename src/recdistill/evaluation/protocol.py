"""The names of evaluation protocols: "full", or "sampled(499)"."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from recdistill.errors import UsageError, problem

__all__ = ["ProtocolName", "sampled"]

_FORM = r"^(full|sampled\([1-9][0-9]*\))$"

ProtocolName = Annotated[
    str, Field(pattern=_FORM, json_schema_extra={"words": '"full", or "sampled(n)" with n at least 1'})
]
"""As a setting."""


def sampled(protocol: str) -> int | None:
    """How many items a protocol ranks the target among; None for "full".

    Raises:
        UsageError: no such protocol.
    """
    if re.fullmatch(_FORM, protocol) is None:
        allowed = '"full", or "sampled(n)" with n at least 1'
        raise UsageError(problem("Unknown evaluation protocol", protocol, allowed=allowed))
    return None if protocol == "full" else int(protocol[8:-1])
