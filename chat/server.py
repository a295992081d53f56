"""Make Chainlit's web server stricter: nothing for other sites, no giant requests or floods, own uploads and words."""

import collections
import math
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import chainlit.server
import psutil
from chainlit.config import APP_ROOT, ChainlitConfig
from chainlit.context import init_ws_context
from chainlit.server import app, router, serve, sio
from chainlit.session import BaseSession, WebsocketSession
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route

from chat.settings import MAX_PENDING_MESSAGES, MAX_REQUEST_BYTES, OWN_HOSTS
from chat.texts import closest_language, say

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


def harden(api: FastAPI, root_path: str, hosts: list[str]) -> None:
    """Set up Chainlit's server. Call this once, before the server starts.

    Args:
        api: the application to mount under `/api`.
        root_path: prefix of all addresses, as `chainlit run --root-path` sets it.
        hosts: host names that the server answers to. It refuses others: a site could point its own name at
            this machine and read our answers as its own (DNS rebinding).
    """
    # Other programs of this machine have pages on other ports, so this machine's own names do not suffice.
    outside_names = set(hosts) - {*OWN_HOSTS, "*"}

    def is_own_page(origin: str, request: dict) -> bool:
        # A proxy may change scheme and port between the page and this server, so only names are compared.
        page = urlsplit(origin)
        asked_for = {request.get("HTTP_HOST"), request.get("HTTP_X_FORWARDED_HOST")}
        return page.netloc in asked_for or page.hostname in outside_names

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.max_body_size = MAX_REQUEST_BYTES
    # With less, a pasted megabyte would end the connection instead of getting an answer.
    sio.eio.max_http_buffer_size = MAX_REQUEST_BYTES
    sio.eio.cors_allowed_origins = is_own_page
    # Remove the documentation of Chainlit's own endpoints: nobody needs it here, and it loads from other servers.
    documentation = ("/docs", "/redoc", "/openapi.json")
    app.router.routes[:] = [
        route for route in app.router.routes if not getattr(route, "path", "").startswith(documentation)
    ]
    app.router.routes.insert(0, Mount(f"{root_path}/api", api))
    # Insert before Chainlit's last route, which answers every address that no other route took.
    router.routes.insert(len(router.routes) - 1, Route(f"{root_path}/{{path:path}}", _page, methods=["GET"]))


def use_own_words() -> None:
    """Let the page ask for a name and warn of the classifier. Chainlit asks for an e-mail address and warns of LLMs."""
    load = ChainlitConfig.load_translation

    def load_translation(config: ChainlitConfig, language: str) -> dict:
        translation, own = load(config, language), closest_language(language)
        name, required = say("page_name", own), say("page_name_required", own)
        translation["auth"]["login"]["form"]["email"] = {"label": name, "placeholder": "", "required": required}
        translation["chat"]["watermark"] = say("page_warning", own)
        return translation

    ChainlitConfig.load_translation = load_translation


def refuse_floods(warn: Callable[[], Awaitable[None]]) -> None:
    """Let each visit wait for `MAX_PENDING_MESSAGES` answers at most, and refuse what it sends meanwhile.

    Chainlit itself spends milliseconds of the server's thread on a message before the app sees it.

    Args:
        warn: is called in the context of a visit when its messages are refused, every five seconds at most.
    """
    receive, pending, warned_at = sio.handlers["/"]["client_message"], collections.Counter(), {}
    # The page cannot edit messages (see .chainlit/config.toml), but a script could send a flood of such events.
    del sio.handlers["/"]["edit_message"]

    def answered(visit: str) -> None:
        pending[visit] -= 1
        if not pending[visit]:
            del pending[visit]
            warned_at.pop(visit, None)

    @sio.on("client_message")
    async def receive_or_refuse(sid: str, payload: dict) -> None:
        session = WebsocketSession.require(sid)
        if pending[session.id] < MAX_PENDING_MESSAGES:
            pending[session.id] += 1
            await receive(sid, payload)
            session.current_task.add_done_callback(lambda _: answered(session.id))
        elif time.monotonic() - warned_at.get(session.id, -math.inf) > 5:
            warned_at[session.id] = time.monotonic()
            init_ws_context(session)
            await warn()


def keep_own_uploads() -> None:
    """Let Chainlit keep uploads in a folder of this process, and remove what killed servers left. Call this once.

    Chainlit itself keeps the uploads of all servers that were started in one folder together, and removes them all when
    one of these servers ends.
    """
    uploads = Path(APP_ROOT, ".files")
    # Process numbers are used again, so the time of the start belongs to the name.
    names = {
        process.pid: f"process-{process.pid}-{process.info['create_time'] or 0:.0f}"
        for process in psutil.process_iter(["create_time"])
    }
    for left in uploads.glob("process-*"):
        if left.name not in names.values():
            shutil.rmtree(left, ignore_errors=True)
    folder = uploads / names[os.getpid()]
    # Chainlit removes this folder when the server ends.
    chainlit.server.FILES_DIRECTORY = folder

    def files_dir(session: BaseSession) -> Path:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # Somebody may have removed it.
        return folder / session.id

    BaseSession.files_dir = property(files_dir)
    keep = BaseSession.persist_file

    async def persist_file(session: BaseSession, name: str, mime: str, path=None, content=None):
        # Chainlit fails on an empty file. A line end makes the reader say that there are no messages in it.
        return await keep(session, name, mime, path, content if path or content else b"\n")

    BaseSession.persist_file = persist_file
