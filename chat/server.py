"""Make Chainlit's web server stricter: nothing from other servers, nothing for other sites, no giant requests."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from chainlit.server import app, router, serve, sio
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from chat.environment import OWN_HOSTS
from chat.limits import MAX_REQUEST_BYTES

# Chainlit renders custom elements with `eval` and sets styles inline, so the policy has to allow both.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)

_OUTSIDE_LINK = re.compile(r'<link\b[^>]*\bhref="https?://[^>]*>')


async def _page(request: Request) -> HTMLResponse:
    """Return Chainlit's page without the fonts and styles it would fetch from other servers."""
    response = await serve(request)
    html = _OUTSIDE_LINK.sub("", response.body.decode())
    return HTMLResponse(html, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


def own_origins(hosts: list[str]) -> Callable[[str, dict], bool]:
    """Return the check of a WebSocket's origin: it tells whether the page that connects is our own.

    A proxy may change scheme and port between the page and this server, so only names are compared: the origin's name
    must be one of `hosts`, or name and port must be those that the request asks for.
    """

    def is_own(origin: str, request: dict) -> bool:
        page = urlsplit(origin)
        asked_for = {request.get("HTTP_HOST"), request.get("HTTP_X_FORWARDED_HOST")}
        return page.netloc in asked_for or page.hostname in named

    # Other programs of this machine have pages on other ports, so this machine's own names do not suffice.
    named = set(hosts) - set(OWN_HOSTS) - {"*"}
    return is_own


def harden(api: FastAPI, root_path: str, hosts: list[str]) -> None:
    """Set up Chainlit's server. Call this once, before the server starts.

    Args:
        api: the application to mount under `/api`.
        root_path: prefix of all addresses, as `chainlit run --root-path` sets it.
        hosts: host names that the server answers to. It refuses others: a site could point its own name at
            this machine and read our answers as its own (DNS rebinding).
    """
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.max_body_size = MAX_REQUEST_BYTES
    # With less, a pasted megabyte would end the connection instead of getting an answer.
    sio.eio.max_http_buffer_size = MAX_REQUEST_BYTES
    sio.eio.cors_allowed_origins = own_origins(hosts)
    # Remove the documentation of Chainlit's own endpoints: nobody needs it here, and it loads from other servers.
    documentation = ("/docs", "/redoc", "/openapi.json")
    app.router.routes[:] = [
        route for route in app.router.routes if not getattr(route, "path", "").startswith(documentation)
    ]
    app.router.routes.insert(0, Mount(f"{root_path}/api", api))
    # Insert before Chainlit's last route, which answers every address that no other route took.
    router.routes.insert(len(router.routes) - 1, Route(f"{root_path}/{{path:path}}", _page, methods=["GET"]))
