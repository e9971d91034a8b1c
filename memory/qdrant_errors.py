"""What a call to Qdrant that failed means."""

from __future__ import annotations

from kiki.errors import StoreError, StoreUnavailableError


def named_error(url: str, error: Exception) -> StoreError:
    """The client's errors come from HTTP, gRPC or its own checks: what the server refuses for
    good is told from what passes."""
    from grpc import StatusCode
    from grpc.aio import AioRpcError
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    if isinstance(error, StoreError):
        return error
    denied = isinstance(error, UnexpectedResponse) and error.status_code in (401, 403)
    wrong = isinstance(error, UnexpectedResponse) and error.status_code in (400, 422)
    if isinstance(error, AioRpcError):
        denied = error.code() in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)
        wrong = error.code() is StatusCode.INVALID_ARGUMENT
    if denied:
        return StoreError(f"Qdrant at {url} refuses the key.", fix="Correct qdrant_api_key.")
    reason = error.source if isinstance(error, ResponseHandlingException) else error
    # One line: a refusal comes with its whole body.
    told = f"{type(reason).__name__}: {reason}".split("\n")[0]
    if wrong or isinstance(error, ValueError):
        return StoreError(f"Qdrant at {url} refused the call: {error}.")
    return StoreUnavailableError(f"Qdrant at {url} failed: {told}.")
