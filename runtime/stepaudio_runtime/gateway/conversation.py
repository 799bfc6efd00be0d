"""The messages of a chat request, checked: who says what, in text and audio. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepaudio_runtime.codec.tools import ToolCall, written
from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.audio_ids import MAX_ALL_WORDS, words_of

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
"""The model's roles by OpenAI's."""


_SLICE = 1 << 16
"""Characters that are encoded at a time: a recording may be long."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Audio of a message in base64; `param` is where it stands in the request."""

    data: str
    param: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `parts` in their order."""

    role: str
    parts: tuple[str | Recording, ...]


@dataclass(slots=True)
class _Before:
    """What the messages before one have had: calls, by their ids, and bytes of words said aloud."""

    calls: set[str] = field(default_factory=set)
    said_aloud: int = 0


def parse_messages(raw: Sequence[Any]) -> list[Message]:
    """The conversation. Raises InputError that names the part at fault."""
    before = _Before()
    messages = [_message(entry, f"messages[{number}]", before) for number, entry in enumerate(raw)]
    if all(message.role == "system" for message in messages):
        raise InputError("the conversation has no message to answer", param="messages", code="invalid_value")
    return messages


def conversation_key(messages: Sequence[Message], cache_key: str | None) -> bytes:
    """What stays the same while a conversation grows: its beginning, up to the first thing the user says.

    `cache_key` is the client's own name for it (`prompt_cache_key`), where it gives one.
    """
    if cache_key is not None:
        return hashlib.sha256(b"key:" + cache_key.encode()).digest()
    digest = hashlib.sha256()
    for message in messages:
        digest.update(f"{message.role}:{len(message.parts)}:".encode())
        for part in message.parts:
            kind, text = ("text", part) if isinstance(part, str) else ("audio", part.data)
            digest.update(f"{kind}:{len(text)}:".encode())
            for start in range(0, len(text), _SLICE):
                digest.update(text[start : start + _SLICE].encode())
        if message.role == "user":
            break
    return digest.digest()


def _message(entry: Any, param: str, before: _Before) -> Message:
    fields = _object(entry, param)
    role = fields.get("role")
    if not isinstance(role, str):
        raise InputError(f"{param} has no role", param=f"{param}.role", code="missing_required_parameter")
    if role not in ROLES:
        raise InputError(
            f"the role {role[:32]!r} is not served; use system, user, assistant or tool",
            param=f"{param}.role",
            code="unsupported_value",
        )
    if fields.get("function_call"):
        raise InputError(
            "function calls of the old form are not served; use tool_calls",
            param=f"{param}.function_call",
            code="unsupported_parameter",
        )
    if role == "tool" and _string(fields.get("tool_call_id"), f"{param}.tool_call_id") not in before.calls:
        raise InputError(
            "a message of the role tool answers a call of a message before it; its `tool_call_id` names none",
            param=f"{param}.tool_call_id",
            code="invalid_value",
        )
    content = _content(fields.get("content"), role, f"{param}.content")
    if fields.get("audio") is not None:
        content = content or (_said_aloud(fields["audio"], role, f"{param}.audio", before),)
    if fields.get("tool_calls"):
        if role != "assistant":
            raise InputError(
                "only the assistant calls tools", param=f"{param}.tool_calls", code="unsupported_value"
            )
        content += _calls(fields["tool_calls"], f"{param}.tool_calls", before.calls)
    return Message(ROLES[role], content)


def _said_aloud(entry: Any, role: str, param: str, before: _Before) -> str:
    """The words of the spoken answer that a message refers to; their bytes are added to those of `before`."""
    words = words_of(_string(_object(entry, param).get("id"), f"{param}.id"))
    if words is None or role != "assistant":
        raise InputError(
            "no spoken answer of this deployment has this id; send its transcript as the message's content",
            param=f"{param}.id",
            code="invalid_value",
        )
    before.said_aloud += len(words.encode())
    if before.said_aloud > MAX_ALL_WORDS:
        raise InputError(
            f"the spoken answers up to this one have more than {MAX_ALL_WORDS:,} bytes of words; leave out "
            "the oldest messages",
            param=f"{param}.id",
            code="context_length_exceeded",
        )
    return words


def _calls(entries: Any, param: str, calls: set[str]) -> tuple[str, ...]:
    """Calls of an earlier turn as the model wrote them; their ids are added to `calls`."""
    if not isinstance(entries, list):
        raise InputError(f"{param} is expected to be a list", param=param, code="invalid_type")
    written_calls = []
    for number, entry in enumerate(entries):
        at = f"{param}[{number}]"
        fields = _object(entry, at)
        function = _object(fields.get("function"), f"{at}.function")
        calls.add(_string(fields.get("id"), f"{at}.id"))
        name = _string(function.get("name"), f"{at}.function.name")
        arguments = _string(function.get("arguments"), f"{at}.function.arguments")
        written_calls.append(written(ToolCall(name, arguments)))
    return tuple(written_calls)


def _content(content: Any, role: str, param: str) -> tuple[str | Recording, ...]:
    if content is None and role == "assistant":
        return ()
    if isinstance(content, str):
        return (content,)
    if not isinstance(content, list) or not content:
        raise InputError(
            f"{param} is expected to be a string or a list of parts", param=param, code="invalid_type"
        )
    return tuple(_part(part, role, f"{param}[{number}]") for number, part in enumerate(content))


def _part(entry: Any, role: str, param: str) -> str | Recording:
    fields = _object(entry, param)
    kind = fields.get("type")
    if kind == "text":
        return _string(fields.get("text"), f"{param}.text")
    if kind == "input_audio" and role == "user":
        audio = _object(fields.get("input_audio"), f"{param}.input_audio")
        return Recording(_string(audio.get("data"), f"{param}.input_audio.data"), f"{param}.input_audio")
    if kind == "input_audio":
        raise InputError("only the user's messages carry audio", param=param, code="unsupported_value")
    raise InputError(
        f"parts of the type {str(kind)[:32]!r} are not served; use text or input_audio",
        param=f"{param}.type",
        code="unsupported_value",
    )


def _object(entry: Any, param: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise InputError(f"{param} is expected to be an object", param=param, code="invalid_type")
    return entry


def _string(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{param} is expected to be a string", param=param, code="invalid_type")
    return value
