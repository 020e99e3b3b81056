"""What the demo's server accepts from visitors: the arguments of one function, in small bodies, and nothing else.

Gradio accepts more. A value that describes a file (`{"path": "http://…", "meta": {"_type": "gradio.FileData"}}`) makes
it fetch that address and keep the file, even where a component expects text, and before any of our code runs. Other
routes store uploads or fetch files of other sites. This filter runs before Gradio and passes on what the page needs.
"""

import asyncio
import json
import re
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORBIDDEN = re.compile(r"/(gradio_api/)?(upload|deep_link|proxy=|(file=|file/)https?:)", re.IGNORECASE)
CALLED = re.compile(r"/gradio_api/(queue/join|call/write)/?")
ENDED = re.compile(r"/gradio_api/(cancel|reset)/?")
MAX_BYTES = 2**14  # of a body; a request of the page takes 300
SECONDS = 10.0  # for a body to arrive
PASSED_ON = {"session_hash": str, "fn_index": int, "trigger_id": int}  # besides the data
MAX_CHARACTERS = 64  # of a session's name


class RefusedError(Exception):
    """A request that is not passed on: its status, and a message for the sender."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestFilter:
    """ASGI middleware before an app whose one function takes `values` texts, numbers and truth values."""

    def __init__(self, app: ASGIApp, values: int) -> None:
        self.app, self.values = app, values

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                receive = await self._filtered(scope, receive)
            except RefusedError as refused:
                answer = JSONResponse({"detail": str(refused)}, refused.status, {"connection": "close"})
                await answer(scope, receive, send)
                return
        elif scope["type"] != "lifespan":  # the page needs no web socket
            return
        await self.app(scope, receive, send)

    async def _filtered(self, scope: Scope, receive: Receive) -> Receive:
        """Return what the app receives of a request. Raises RefusedError."""
        path = scope["path"]
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            if FORBIDDEN.match(path):
                raise RefusedError(404, "Not found")
            return receive
        called = CALLED.fullmatch(path)
        if scope["method"] != "POST" or not (called or ENDED.fullmatch(path)):
            raise RefusedError(404, "Not found")
        body = await read_body(scope, receive)
        waiting: list[Message] = [{"type": "http.request", "body": self.checked_call(body) if called else body}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay

    def checked_call(self, body: bytes) -> bytes:
        """Return the part of a call's body that is passed on. Raises RefusedError for any other body."""
        try:
            given: Any = json.loads(body)
        except (ValueError, RecursionError):
            raise RefusedError(400, "the body is not JSON") from None
        data = given.get("data") if isinstance(given, dict) else None
        if not isinstance(data, list) or len(data) != self.values:
            raise RefusedError(422, f"data: give a list of {self.values} values")
        if not all(value is None or isinstance(value, str | int | float) for value in data):
            raise RefusedError(422, "data: give only texts, numbers, true or false")
        passed_on: dict[str, Any] = {"data": data}
        for name, kind in PASSED_ON.items():
            value = given.get(name)
            if value is not None and (type(value) is not kind or len(str(value)) > MAX_CHARACTERS):
                raise RefusedError(422, f"{name}: not a value of this page")
            passed_on[name] = value
        return json.dumps(passed_on).encode()


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the body of a request. Raises RefusedError if it is too large, or announced so, or too slow."""
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if not announced.isdigit() or len(announced) > 9 or int(announced) > MAX_BYTES:
        raise RefusedError(413, f"a body of more than {MAX_BYTES:,} bytes")
    body, more = b"", True
    try:
        async with asyncio.timeout(SECONDS):
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)  # a visitor who left sends no more
                if len(body) > MAX_BYTES:
                    raise RefusedError(413, f"a body of more than {MAX_BYTES:,} bytes")
    except TimeoutError:
        raise RefusedError(408, f"the body takes longer than {SECONDS:g} s") from None
    return body
