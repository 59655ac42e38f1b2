"""Turns whatever was raised into the status that the caller may see."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NoReturn

import grpc.aio
import structlog

from memoro_core.errors import MemoroError
from memoro_server.call import Call, Handler, Method
from memoro_server.status import Failure, failure_of, internal_error, interrupted


class ErrorsInterceptor:
    """Aborts a failed call with a `google.rpc.Status`; nothing internal passes.

    A caller that is gone needs no status: then the exception goes on, and gRPC drops the call. It shows as a cancelled
    task, or, to a stream that was about to write, as gRPC's own error of a write that failed.
    """

    name: Final = "errors"

    def __init__(self) -> None:
        self._logger = structlog.get_logger("memoro.server").bind()

    def wrap(self, method: Method, proceed: Handler) -> Handler:
        logger = self._logger

        async def guarded(request: Any, call: Call) -> bytes | None:
            try:
                return await proceed(request, call)
            except grpc.aio.AbortError:
                raise
            except MemoroError as error:
                failure = failure_of(error)
                if error.__cause__ is not None:
                    logger.warning("call failed", method=method.path, exc_info=error.__cause__)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Something else was cancelled while the caller waits on; without a status he would wait for ever.
                logger.warning("call interrupted", method=method.path, exc_info=True)
                failure = failure_of(interrupted())
            except Exception as error:
                if _caller_is_gone(error):
                    raise
                logger.exception("unexpected error", method=method.path)
                failure = failure_of(internal_error(call.request_id))
            return await _abort(call, failure)

        return guarded


async def _abort(call: Call, failure: Failure) -> NoReturn:
    call.reason = failure.reason
    await call.context.abort(failure.code, failure.message, (*call.trailers, *failure.trailers))
    raise AssertionError("abort raises")


def _caller_is_gone(error: Exception) -> bool:
    return isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError | grpc.aio.InternalError)
