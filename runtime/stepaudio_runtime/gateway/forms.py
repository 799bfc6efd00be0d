"""Reads multipart forms: files apart from fields, everything that is no form refused."""

from collections.abc import Collection
from typing import Any, TypeVar

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from stepaudio_runtime.errors import InputError
from stepaudio_runtime.gateway.errors import ApiError
from stepaudio_runtime.gateway.schemas import Form, input_error

MAX_FIELDS = 32
"""Fields of a form."""
MAX_FILES = 4
CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

F = TypeVar("F", bound=Form)


async def read_form(request: Request) -> FormData:
    """The form of `request`, to be closed. Raises ApiError 415, or InputError for what is no valid form."""
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "send the file as multipart/form-data", code="unsupported_media_type")
    try:
        _refuse_charset(request.headers["Content-Type"])
        return await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS)
    except (HTTPException, InputError):
        raise
    except Exception as fault:
        # The parser fails in many ways on what is not a form (unknown charset, no boundary, cut headers).
        raise InputError("the body is not a valid form", code="invalid_form") from fault


def _refuse_charset(content_type: str) -> None:
    """Raise InputError unless the fields are in UTF-8: other codecs make halves of characters."""
    charset = parse_options_header(content_type)[1].get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in CHARSETS:
        raise InputError(
            f"forms in the charset {charset[:32]!r} are not taken; send it in UTF-8", code="invalid_form"
        )


def file_of(form: FormData, name: str) -> UploadFile:
    """The file `name`. Raises InputError where there is none."""
    file = form.get(name)
    if not isinstance(file, UploadFile):
        raise InputError(
            f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
        )
    return file


def fields_of(form: FormData, schema: type[F], files: Collection[str]) -> F:
    """The fields besides `files`, checked. Raises InputError."""
    raw: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in files:
            continue
        if isinstance(value, UploadFile):
            raise InputError(
                f"`{name[:64]}` is not expected to be a file", param=name[:64], code="invalid_type"
            )
        plain = name.removesuffix("[]")
        held = raw.get(plain)
        if plain == name:
            raw[plain] = value
        else:  # one of a list, whatever else was sent under its name
            raw[plain] = [*held, value] if isinstance(held, list) else [value]
    try:
        fields = schema.model_validate(raw)
    except ValidationError as fault:
        raise input_error(fault) from fault
    fields.refuse_unserved()
    return fields
