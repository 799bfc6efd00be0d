"""The one edge at which this runtime's exceptions become HTTP answers in OpenAI's shape."""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stepaudio_runtime.bodies import ErrorBody
from stepaudio_runtime.contract import HEADER_RETRY_AFTER
from stepaudio_runtime.errors import InputError, OutputError, Overloaded, StepAudioError, Unavailable

log = logging.getLogger(__name__)


def error_body(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> ErrorBody:
    """OpenAI's error object; halves of characters, which nothing can be sent in, become question marks."""
    param = None if param is None else _sendable(param)
    return {"error": {"message": _sendable(message), "type": kind, "param": param, "code": code}}


def _sendable(text: str) -> str:
    return text.encode(errors="replace").decode()


def error_response(error: Exception) -> JSONResponse:
    """The answer for `error`: 400, 429, 502, 503, or 500 for what nobody foresaw (without its text)."""
    if isinstance(error, InputError):
        body = error_body(error.message, "invalid_request_error", param=error.param, code=error.code)
        return JSONResponse(body, 400)
    if isinstance(error, Overloaded | Unavailable):
        status, kind = (
            (429, "rate_limit_error") if isinstance(error, Overloaded) else (503, "unavailable_error")
        )
        body = error_body(error.message, kind, code=error.reason.lower())
        return JSONResponse(body, status, {HEADER_RETRY_AFTER: str(error.retry_after_s)})
    if isinstance(error, OutputError):
        return JSONResponse(error_body(error.message, "model_output_error", code="bad_model_output"), 502)
    if isinstance(error, HTTPException):
        body = error_body(str(error.detail), "invalid_request_error")
        return JSONResponse(body, error.status_code, error.headers)
    return JSONResponse(error_body("internal error", "internal_error"), 500)


async def handle_error(_request: Request, error: Exception) -> Response:
    """Exception handler for Starlette and FastAPI."""
    if not isinstance(error, StepAudioError | HTTPException):
        log.error("unexpected error", exc_info=error)
    return error_response(error)


ERROR_HANDLERS = {StepAudioError: handle_error, HTTPException: handle_error, Exception: handle_error}
