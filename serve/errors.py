"""What the service answers when it cannot do what was asked."""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """An answer other than success: its status, a code for programs, and a sentence on what to do."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status_code, self.code, self.detail, self.headers = status, code, message, headers


def not_found(name: str) -> ApiError:
    """Return the answer for a job that this caller does not have."""
    return ApiError(404, "not_found", f"There is no video {name[:40]!r}. GET /v1/videos lists yours.")
