"""Tools in a chat request, as OpenAI's API has them, and the calls in its answer."""

import json
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from stepaudio_runtime.codec.chat_template import Turn
from stepaudio_runtime.codec.tools import CALL_BEGIN, ToolCall, system_with_tools
from stepaudio_runtime.errors import InputError

MAX_TOOLS = 128
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


def _finite(parameters: dict[str, Any]) -> dict[str, Any]:
    """`parameters`, which become JSON again in the prompt: NaN, and what 1e999 is once it is read, cannot."""
    try:
        json.dumps(parameters, allow_nan=False)
    except ValueError:
        raise PydanticCustomError("finite_number", "numbers have to be finite") from None
    return parameters


class Function(BaseModel):
    """What the model may call."""

    model_config = ConfigDict(strict=True)
    name: Name
    description: Annotated[str, Field(max_length=4096)] | None = None
    parameters: Annotated[dict[str, Any], AfterValidator(_finite)] | None = None

    @property
    def offered(self) -> dict[str, Any]:
        """As it stands in the system prompt."""
        return {key: value for key, value in self if value is not None}


class Tool(BaseModel):
    """An entry of `tools`."""

    model_config = ConfigDict(strict=True)
    type: Literal["function"]
    function: Function


class _Named(BaseModel):
    model_config = ConfigDict(strict=True)
    name: Name


class NamedChoice(BaseModel):
    """A `tool_choice` that asks for one function."""

    model_config = ConfigDict(strict=True)
    type: Literal["function"]
    function: _Named


ToolChoice = Literal["none", "auto", "required"] | NamedChoice
Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS)]


class Offer:
    """The tools of one request; empty where there are none or none may be called.

    Raises InputError where tools and choice do not fit together.
    """

    def __init__(self, tools: Sequence[Tool] | None, choice: ToolChoice | None, *, parallel: bool) -> None:
        functions = [tool.function for tool in tools or ()]
        self.names = frozenset(function.name for function in functions)
        if len(self.names) != len(functions):
            raise InputError("`tools` names a function twice", param="tools", code="invalid_value")
        if choice not in (None, "none", "auto") and not functions:
            raise InputError(
                "`tool_choice` needs `tools`", param="tool_choice", code="missing_required_parameter"
            )
        if isinstance(choice, NamedChoice) and choice.function.name not in self.names:
            message = f"`tools` has no function {choice.function.name!r}"
            raise InputError(message, param="tool_choice", code="invalid_value")
        if choice == "none":
            functions, self.names = [], frozenset()
        self.parallel = parallel
        self._functions = [function.offered for function in functions]
        self.begun = _beginning(choice)
        """What the answer begins with, since it was asked for."""

    def turns(self, turns: Sequence[Turn]) -> list[Turn]:
        """The conversation with the tools in its system prompt."""
        if not self._functions:
            return list(turns)
        first, rest = (turns[0], turns[1:]) if turns and turns[0].role == "system" else (None, turns)
        words = "".join(part for part in (first.content or ()) if isinstance(part, str)) if first else ""
        return [Turn("system", (system_with_tools(words, self._functions),)), *rest]


def _beginning(choice: ToolChoice | None) -> str:
    if isinstance(choice, NamedChoice):
        return f'{CALL_BEGIN}{{"name":"{choice.function.name}","arguments":'
    return f'{CALL_BEGIN}{{"name":"' if choice == "required" else ""


class Calls:
    """The calls of one answer, in OpenAI's words. With `parallel` false the first one is all there is."""

    def __init__(self, offer: Offer) -> None:
        self._parallel = offer.parallel
        self.made: list[dict[str, Any]] = []

    def take(self, calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
        """What `calls` add to a stream's `tool_calls`."""
        new = []
        for call in calls:
            if self.made and not self._parallel:
                break
            function = {"name": call.name, "arguments": call.arguments}
            self.made.append({"id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function})
            new.append({"index": len(self.made) - 1, **self.made[-1]})
        return new

    def finish_reason(self, otherwise: str) -> str:
        """Why the answer ended."""
        return "tool_calls" if self.made else otherwise
