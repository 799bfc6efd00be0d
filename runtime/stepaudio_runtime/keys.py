"""Keys of other services, read from variables that people and Secrets fill. Pure.

A file that ends in a newline makes a Secret that does, so what stands around a key is cut off. What cannot be
sent in a header is an error here: the HTTP client's own would quote the key.
"""

from __future__ import annotations

from collections.abc import Mapping

from stepaudio_runtime.errors import ConfigError


def read_key(env: Mapping[str, str], variable: str) -> str:
    """The key in `variable`; empty where there is none. Raises ConfigError, without the key, for no key."""
    key = env.get(variable, "").strip()
    if all(" " <= character <= "~" for character in key):
        return key
    what = f"the variable {variable} holds more than a key: a line's end inside, or a character beyond ASCII"
    raise ConfigError(what=what, cure="set it, or the Secret that it comes from, to the key alone")


def bearer(key: str) -> dict[str, str]:
    """The header that carries `key`; none for an empty one."""
    return {"Authorization": f"Bearer {key}"} if key else {}
