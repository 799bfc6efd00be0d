"""Errors that only the gateway has, and the one place where they become OpenAI-style answers.

    StepAudioError
    ├── ApiError             an answer with its own status: 401, 404, 405, 408, 413, 415
    ├── UpstreamFailed       a pod broke off or answered what it should not: 502
    └── DeadlineExceeded     the request took longer than allowed: 504

Everything else of the tree is translated by `health.answers`.
"""

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stepaudio_runtime.errors import StepAudioError
from stepaudio_runtime.health import answers

log = logging.getLogger(__name__)


class ApiError(StepAudioError):
    """What the client did wrong where 400 is not the status for it."""

    reason = "ApiError"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers or {}
        super().__init__(message)


class UpstreamFailed(StepAudioError):  # noqa: N818 - the pod's fault, not ours
    """A pod broke off, or answered something that it should not."""

    reason = "UpstreamFailed"


class DeadlineExceeded(StepAudioError):  # noqa: N818 - says what happened
    """The request was not answered in full within its time."""

    reason = "DeadlineExceeded"


def model_not_found(model: str) -> ApiError:
    """404 for a model that this deployment does not serve, as OpenAI words it."""
    return ApiError(
        404,
        f"The model `{model[:128]}` does not exist or is not part of this deployment.",
        param="model",
        code="model_not_found",
    )


def error_response(error: Exception) -> JSONResponse:
    """The OpenAI-style answer for any error; the text of an unforeseen one stays here."""
    if isinstance(error, ApiError):
        body = answers.error_body(error.message, error.kind, param=error.param, code=error.code)
        return JSONResponse(body, error.status, error.headers)
    if isinstance(error, UpstreamFailed):
        return JSONResponse(answers.error_body(error.message, "server_error", code="upstream_failed"), 502)
    if isinstance(error, DeadlineExceeded):
        return JSONResponse(answers.error_body(error.message, "server_error", code="timeout"), 504)
    if isinstance(error, HTTPException):
        code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
        detail = {404: "Unknown request URL.", 405: "This URL does not serve this method."}
        message = detail.get(error.status_code, str(error.detail))
        body = answers.error_body(message, "invalid_request_error", code=code)
        return JSONResponse(body, error.status_code, error.headers)
    return answers.error_response(error)


async def handle_error(_request: Request, error: Exception) -> Response:
    """Exception handler of the application."""
    if not isinstance(error, StepAudioError | HTTPException):
        log.error("unexpected error", exc_info=error)
    return error_response(error)
