"""Errors that clients get: JSON in OpenAI's shape, one line, without anything of the server's inside."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kebyt5_xm.data.media.bad_sample import shorten

log = logging.getLogger("kebyt5_xm.serving")

JSON_OBJECT = "a JSON object, sent with 'Content-Type: application/json'"
UNREADABLE = "There was an error parsing the body"
"""What fastapi says of JSON that `json` cannot hold, such as a number of 5,000 digits."""
MAX_MESSAGE = 600
"""Characters of a message. Our own choice."""


class ApiError(HTTPException):
    """A request that is refused.

    Args:
        status: of HTTP, 400 to 599.
        message: what was found, what was expected, what to do.
        code: a word for programs.
        param: the argument at fault.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, shorten(message, MAX_MESSAGE), headers=dict(headers or {}))
        self.code, self.param = code, param

    def content(self) -> dict[str, Any]:
        """Return the JSON of the response."""
        kind = "server_error" if self.status_code >= 500 else "invalid_request_error"
        if self.status_code == 429:
            kind = "rate_limit_error"
        return {
            "error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code},
        }

    def response(self) -> JSONResponse:
        """Return the response."""
        return JSONResponse(self.content(), self.status_code, self.headers)


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """Return the error for an argument that cannot be used."""
    return ApiError(400, message, code, param)


def internal_error() -> ApiError:
    """Return the error for a fault of the server; the log has its cause."""
    return ApiError(
        500, "the server failed; its log has the cause, and others are still answered", "internal"
    )


def timeout_error(seconds: float) -> ApiError:
    """Return the error for a request that takes more than `seconds`; clients should not send it again."""
    return ApiError(
        408,
        f"found no end after {seconds:g} seconds, the most for a request; ask for fewer max_new_tokens or a smaller "
        "input, or try when the server is less busy",
        "timeout",
        headers={"x-should-retry": "false"},  # read by the openai client, which repeats a 408 otherwise
    )


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of the app in OpenAI's shape."""
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_fault)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, ApiError):
        assert isinstance(error, HTTPException)
        if error.detail == UNREADABLE:
            return _unreadable("its numbers or its depth are beyond what is read").response()
        codes = {404: "not_found", 405: "method_not_allowed"}
        code = codes.get(error.status_code, "invalid_request")
        message = (
            f"{error.detail}: {request.method} {request.scope['path']}; /openapi.json lists the requests"
        )
        error = ApiError(error.status_code, message, code, headers=error.headers)
    return error.response()


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return describe_invalid(error.errors()).response()


async def _on_fault(request: Request, error: Exception) -> JSONResponse:
    return internal_error().response()  # starlette raises it again, so that it is logged


def _unreadable(cause: str) -> ApiError:
    return bad_request(f"found a body that is no JSON ({cause}); correct it", code="invalid_json")


def _field_name(location: Sequence[str | int]) -> str | None:
    """Return the path of a field as it stands in the JSON: pydantic's has the members of unions too."""
    parts = [str(part) for part in location if part != "body" and "[" not in str(part).removesuffix("[]")]
    named = [part for part, after in zip(parts, [*parts[1:], ""], strict=False) if part != after]
    if len(named) > 1 and named[-1] in ("str", "int", "float"):
        named.pop()
    return shorten(".".join(named), 100) or None


def describe_invalid(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """Return the first of pydantic's errors; those of a union are of its likeliest member.

    That is the one in which the error lies deepest, or whose own type is right.
    """

    def likelihood(error: Mapping[str, Any]) -> tuple[int, bool]:
        return len(error["loc"]), not error["type"].endswith("_type")

    first = max(errors, key=likelihood) if errors else {"loc": (), "msg": "invalid"}
    if first.get("type") == "json_invalid":
        cause = first.get("ctx", {}).get("error", "")
        return _unreadable(cause)
    param = _field_name(first["loc"])
    if param is None and first.get("type") == "missing":
        return bad_request(f"found an empty body, expected {JSON_OBJECT}", code="invalid_json")
    if param is None and first.get("type") == "model_attributes_type":
        return bad_request(
            f"found a body that is no JSON object, expected {JSON_OBJECT}", code="invalid_json"
        )
    wording = {
        "extra_forbidden": "found an argument that is unknown here; leave it out",
        "missing": "it is missing",
    }
    message = wording.get(first.get("type", ""), str(first["msg"]).removeprefix("Value error, "))
    return bad_request(f"{param}: {message}" if param else message, param)
