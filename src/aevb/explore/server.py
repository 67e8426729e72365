"""The explorer served to one browser on this machine.

Starlette is what it is made of: routes, host check and a test client. FastAPI would add a schema
of a dozen small requests, and NiceGUI, Panel or Dash a front end of their own over a socket, which
no static page could be made of. The page is files that both this and the export use.
"""

import asyncio
import hmac
import secrets
import socket
from collections.abc import Callable, Generator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from aevb.cli.files import as_json
from aevb.explore.explorer import Explorer
from aevb.explore.jobs import Job, Worker

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["PAGE", "application", "serve"]

# What the browser is given, by name, with its kind.
PAGE = {
    "index.html": "text/html", "explore.css": "text/css", "sources.js": "text/javascript",
    "map.js": "text/javascript", "colours.js": "text/javascript", "panels.js": "text/javascript",
    "datapoint.js": "text/javascript", "app.js": "text/javascript",
}  # fmt: skip
# Of a request; the longest is a list of latents.
_MOST_BYTES = 2**16
_HEADERS = {
    # what is inline are the bars' widths and pictures; nothing comes from elsewhere
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",  # the address holds the token
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def application(explorer: Explorer, worker: Worker, token: str) -> "Starlette":
    """The page and what it asks, under an address that begins with the token.

    Args:
        explorer: What is explored.
        worker: Computes.
        token: First part of every path; requests without it, or for another host than this one,
            are refused.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import JSONResponse, RedirectResponse, Response
    from starlette.routing import Mount, Route

    class Answer(JSONResponse):
        def render(self, content: Any) -> bytes:
            return as_json(content).encode()

    def refused(message: str, status: int = 400) -> Response:
        return Answer({"error": message}, status)

    def answering(make: Callable[..., Any]) -> Callable[..., Any]:
        """An endpoint: refusals are answers of status 400, and nothing else is told of errors."""

        async def endpoint(request: "Request") -> Response:
            try:
                found = await make(request)
            except (ValueError, NotImplementedError, KeyError, TypeError) as error:
                first, *_ = str(error).splitlines() or [type(error).__name__]
                return refused(first)
            return found if isinstance(found, Response) else Answer(found)

        return endpoint

    async def computed(function: Callable[[], Any]) -> Any:
        return await asyncio.wrap_future(worker.call(function))

    async def page(request: "Request") -> Any:
        name = request.path_params.get("name", "index.html")
        if name not in PAGE:
            return refused("no such file", 404)
        content = files(__package__).joinpath("page", name).read_bytes()
        return Response(content, media_type=PAGE[name])

    async def overview(request: "Request") -> Any:
        return await computed(explorer.overview)

    async def sprite(request: "Request") -> Any:
        return Response(explorer.thumbnails, media_type="image/png")

    async def plane(request: "Request") -> Any:
        if not explorer.is_plane:
            return refused("the latent space is no plane", 404)
        return Response(await computed(explorer.plane), media_type="image/png")

    async def datapoint(request: "Request") -> Any:
        return await computed(lambda: explorer.datapoint(request.path_params["index"]))

    async def decode(request: "Request") -> Any:
        body = await _body(request)
        values, base = _numbers(body, "values"), body.get("base")
        return await computed(lambda: explorer.decode(values, None if base is None else int(base)))

    async def sample(request: "Request") -> Any:
        body = await _body(request)
        region, columns = _numbers(body, "region", 4), _numbers(body, "columns", 2)
        left, right, bottom, top = region
        first, second = map(int, columns)
        num, draw = (int(body.get(name, default)) for name, default in (("num", 24), ("draw", 0)))
        source = body.get("source", "prior")
        return await computed(
            lambda: explorer.sample((first, second), (left, right, bottom, top), source, num, draw)
        )

    async def start(request: "Request") -> Any:
        body = await _body(request)
        kind, index = body.get("kind"), body.get("index")
        steps: Callable[[], Generator[dict[str, Any], None, None]]
        if kind == "weigh":
            name, steps = "weigh", explorer.weigh
        elif kind == "trial" and isinstance(index, int) and 0 <= index < len(explorer):
            name, steps = f"trial-{index}", lambda: explorer.trial(index)
        else:
            raise ValueError("kind: expected weigh, or trial with the index of a datapoint")
        known = worker.job(name)
        if known is not None and known.state == "done":
            return known.seen()  # it would come to the same
        return worker.start(name, steps).seen()

    async def job(request: "Request") -> Any:
        found: Job | None = worker.job(request.path_params["name"])
        if found is None:
            return refused("no such computation", 404)
        if request.method == "DELETE":
            worker.stop(found)
        seen, since = found.seen(), int(request.query_params.get("since", 0))
        if since and "figures" in seen:
            later = {name: values[max(0, since) :] for name, values in seen["figures"].items()}
            seen |= {"figures": later, "since": since}
        return seen

    routes = [
        Route("/", answering(page)),
        Route("/api/overview", answering(overview)),
        Route("/api/sprite.png", answering(sprite)),
        Route("/api/plane.png", answering(plane)),
        Route("/api/datapoint/{index:int}", answering(datapoint)),
        Route("/api/decode", answering(decode), methods=["POST"]),
        Route("/api/sample", answering(sample), methods=["POST"]),
        Route("/api/jobs", answering(start), methods=["POST"]),
        Route("/api/jobs/{name}", answering(job), methods=["GET", "DELETE"]),
        Route("/{name}", answering(page)),
    ]

    async def failed(request: "Request", error: Exception) -> Response:
        return refused("failed: the terminal of aevb explore says why", 500)

    async def missing(request: "Request", error: Exception) -> Response:
        return refused("not found", int(getattr(error, "status_code", 404)))

    async def with_slash(request: "Request") -> Response:
        return RedirectResponse(f"/{token}/")  # relative addresses need it

    return Starlette(
        routes=[Route(f"/{token}", with_slash), Mount(f"/{token}", routes=routes)],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(_OnlyWith, token=token),
        ],
        exception_handlers={Exception: failed, 404: missing, 405: missing},
    )


class _OnlyWith:
    """Refuses requests without the token, and adds headers to all answers."""

    def __init__(self, app: "ASGIApp", token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.responses import PlainTextResponse

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        first = str(scope.get("path", "")).removeprefix("/").partition("/")[0]
        if scope["type"] == "http" and hmac.compare_digest(first.encode(), self.token):
            await self.app(scope, receive, send_with_headers)
        elif scope["type"] == "http":
            refusal = PlainTextResponse("open the address that aevb explore has printed\n", 403)
            await refusal(scope, receive, send_with_headers)


def serve(explorer: Explorer, port: int, announce: Callable[[str], None]) -> str:
    """Serve the explorer on 127.0.0.1 until Ctrl-C.

    Args:
        explorer: What is explored.
        port: To listen at; 0 takes a free one.
        announce: Called with the address, token included.

    Returns:
        The address.

    Raises:
        OSError: If the port is taken.
    """
    import uvicorn

    token = secrets.token_urlsafe(24)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()  # now, so that a browser that comes at once waits
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/{token}/"
        worker = Worker()
        settings = uvicorn.Config(
            application(explorer, worker, token), log_level="warning", access_log=False,
            server_header=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        announce(address)
        try:
            uvicorn.Server(settings).run(sockets=[listening])
        except KeyboardInterrupt:
            pass
        finally:
            worker.close(wait=False)
    return address


async def _body(request: "Request") -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        ValueError: If it is none, or too long.
    """
    import json

    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _MOST_BYTES:
            raise ValueError(f"body: expected at most {_MOST_BYTES} bytes")
    try:
        found = json.loads(bytes(raw))
    except (ValueError, RecursionError) as error:
        raise ValueError("body: expected JSON") from error
    if not isinstance(found, dict):
        raise ValueError("body: expected an object")
    return found


def _numbers(body: dict[str, Any], name: str, count: int | None = None) -> list[float]:
    found = body.get(name)
    numbers = isinstance(found, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in found
    )
    if not isinstance(found, list) or not numbers or count not in (None, len(found)):
        raise ValueError(f"{name}: expected a list of {count or ''} numbers".replace("  ", " "))
    return [float(value) for value in found]
