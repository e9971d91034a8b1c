"""Every error that kiki raises on purpose.

KikiError
├── SettingsError             a setting has a wrong value; the start stops
├── AssetError                a model file is missing, damaged or can't be fetched
├── RequestError              the caller's request is wrong (400; ``param`` names the field)
│   ├── UnknownModelError     404, lists the near names
│   ├── UnknownAdapterError   404, lists the near names
│   ├── UnknownMemoryError    404, the owner has nothing of that id
│   ├── UnknownResponseError  404, the tenant has no response of that id
│   ├── PromptTooLongError    400, the prompt doesn't fit the context
│   ├── TooLargeError         400, more messages, tools or levels than are allowed
│   │   └── BodyTooLargeError 413, more bytes than are allowed
│   └── IdempotencyConflictError  409, the key was used for another request
├── AccessError               no key, or none that is valid (401)
│   └── ForbiddenError        the caller may not do this (403)
├── LimitError                the caller's share is used up (429, retry_after)
│   └── QueueFullError        too many requests wait for the engine (429, retry_after)
├── DeadlineError             the request's time is over (504)
├── DrainingError             the gateway is stopping (503, retry_after)
├── RoutingError              the router's files don't fit each other
├── AdapterError              an adapter's files are wrong, or don't fit the base
├── EvaluationError           a benchmark's files or a run's folder are wrong
├── EngineError               the engine failed on this request (502)
│   └── EngineUnavailableError    the engine is down or starting (503, retry_after)
└── StoreError                a memory store failed
    ├── StoreUnavailableError     down or too slow for now; the journal keeps the episode
    │   └── StoreReplacedError    another process made it anew; it must be opened again
    └── StoreLockedError          another process owns the folder
"""

from __future__ import annotations

from typing import Literal


class KikiError(Exception):
    """Base of all. ``message`` says what was wrong and where; ``fix`` says what to do.

    ``retry_after`` is in seconds, None where waiting doesn't help.
    """

    status = 500
    code = "internal_error"
    exit_code = 1
    retry_after: float | None = None

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message


class SettingsError(KikiError):
    """A setting has a wrong value."""

    code = "bad_setting"
    exit_code = 78  # EX_CONFIG of sysexits.h: a service that ends with it isn't started again


class AssetError(KikiError):
    """A model file is missing, damaged, or can't be fetched."""

    code = "bad_asset"


class RequestError(KikiError):
    """The caller's request is wrong. ``param`` names the field as the caller wrote it."""

    status = 400
    code = "invalid_value"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix)
        self.param = param
        if code is not None:
            self.code = code


class UnknownModelError(RequestError):
    """No model of that name."""

    status = 404
    code = "model_not_found"


class UnknownAdapterError(RequestError):
    """No adapter of that name is loaded."""

    status = 404
    code = "adapter_not_found"


class UnknownMemoryError(RequestError):
    """The owner has nothing of that id."""

    status = 404
    code = "memory_not_found"


class UnknownResponseError(RequestError):
    """The tenant has no response of that id."""

    status = 404
    code = "response_not_found"


class ConsoleOffError(RequestError):
    """The settings keep the console off."""

    status = 404
    code = "console_off"


class PromptTooLongError(RequestError):
    """The prompt, with its reply, doesn't fit the engine's context."""

    code = "context_length_exceeded"


class TooLargeError(RequestError):
    """More messages, tools, or levels of a schema than are allowed."""

    code = "request_too_large"


class BodyTooLargeError(TooLargeError):
    """More bytes than are allowed."""

    status = 413


class IdempotencyConflictError(RequestError):
    """The Idempotency-Key was used before for a different request."""

    status = 409
    code = "idempotency_conflict"


class AccessError(KikiError):
    """The request has no key where one is needed, or one that isn't valid."""

    status = 401
    code = "invalid_api_key"


class ForbiddenError(AccessError):
    """Who calls is known, and may not do this."""

    status = 403
    code = "insufficient_permissions"


class LimitError(KikiError):
    """The caller's share of ``limited`` is used up for now. ``retry_after`` is in seconds."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float,
        limited: Literal["requests", "tokens"] = "requests",
        fix: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix)
        self.retry_after = retry_after
        self.limited = limited


class QueueFullError(LimitError):
    """Too many requests wait for the engine."""

    code = "queue_full"


class DeadlineError(KikiError):
    """The time that the request was given is over."""

    status = 504
    code = "deadline_exceeded"


class DrainingError(KikiError):
    """The gateway is stopping: it finishes what runs and takes nothing new."""

    status = 503
    code = "shutting_down"
    retry_after = 5.0


class RoutingError(KikiError):
    """The router's table, weights or embedder don't fit each other."""

    code = "bad_router"


class AdapterError(KikiError):
    """An adapter's files are wrong, or don't fit the base model."""

    code = "bad_adapter"


class EvaluationError(KikiError):
    """A benchmark's files are wrong, or a run's folder holds another run."""

    code = "bad_evaluation"


class EngineError(KikiError):
    """The engine failed on this request."""

    status = 502
    code = "engine_error"


class EngineUnavailableError(EngineError):
    """The engine is down or starting. ``retry_after`` is in seconds."""

    status = 503
    code = "engine_unavailable"
    retry_after: float

    def __init__(self, message: str, *, retry_after: float = 2.0, fix: str | None = None) -> None:
        super().__init__(message, fix=fix)
        self.retry_after = retry_after


class StoreError(KikiError):
    """A memory store failed."""

    code = "store_error"


class StoreUnavailableError(StoreError):
    """The store is down or too slow for now; the journal keeps what was to be written."""

    status = 503
    code = "store_unavailable"


class StoreReplacedError(StoreUnavailableError):
    """A shared store was made anew by another process; what it held must be written again."""

    code = "store_replaced"


class StoreLockedError(StoreError):
    """Another process owns the store's folder."""

    code = "store_locked"
