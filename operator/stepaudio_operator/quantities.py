"""Quantities as Kubernetes writes them: `500m`, `1.5Gi`, `1e3`."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([+-]?[0-9.]+)(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?[0-9]{1,3}))?")
_BINARY = {unit: 10 * power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}  # of 2
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}  # powers of 10


def amount(text: str) -> Decimal | None:
    """How much that is; None for what is no quantity."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    number, binary, decimal, exponent = match.groups()
    try:
        value = Decimal(number)
    except ArithmeticError:
        return None
    if binary:
        return value * Decimal(2) ** _BINARY[binary]
    return value.scaleb(_DECIMAL[decimal] if decimal else int(exponent or 0))
