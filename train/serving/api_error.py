"""Errors in the form of OpenAI's API."""

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
  """An error that is sent to the client in place of an answer."""

  def __init__(
    self,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
  ):
    super().__init__(message)
    self.status, self.message = status, message
    self.param, self.code = param, code
    self.headers = dict(headers or {})

  def body(self) -> dict[str, Any]:
    """OpenAI's error object."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    server = "server_error" if self.status >= 500 else "invalid_request_error"
    return {
      "error": {
        "message": self.message,
        "type": kinds.get(self.status, server),
        "param": self.param,
        "code": self.code,
      }
    }


def wrong(param: str, message: str, code: str | None = None) -> ApiError:
  """An error about a field of a request."""
  return ApiError(400, message, param=param, code=code)


def unsupported(key: str, reason: str = "") -> ApiError:
  """An error about a field that would change the answer."""
  message = f"{key} is not supported{reason}"
  return wrong(key, message, "unsupported_parameter")
