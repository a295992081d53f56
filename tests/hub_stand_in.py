"""A small stand-in for the Hugging Face Hub: serves model folders at the Hub's addresses."""

import hashlib
import http.server
import json
from pathlib import Path
from typing import ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_handler(repositories: dict[str, Path]) -> type[http.server.BaseHTTPRequestHandler]:
    """Return a handler that serves `{repo_id: folder}` and lists the requests in `handler.requests`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        requests: ClassVar[list[str]] = []

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body: bool):
            path = self.path.split("?")[0]
            self.requests.append(f"{self.command} {path}")
            for repo_id, folder in repositories.items():
                if path.startswith(f"/api/models/{repo_id}/tree"):
                    listing = [
                        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                        for file in sorted(folder.iterdir())
                    ]
                    return self.send(json.dumps(listing).encode(), {"Content-Type": "application/json"}, body)
                if path in (f"/api/models/{repo_id}", f"/api/models/{repo_id}/revision/main"):
                    siblings = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                    info = {"_id": repo_id, "id": repo_id, "sha": COMMIT, "siblings": siblings}
                    return self.send(json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
                prefix = f"/{repo_id}/resolve/"
                file = folder / path.removeprefix(prefix).partition("/")[2]
                if path.startswith(prefix) and file.is_file():
                    content = file.read_bytes()
                    etag = hashlib.sha256(content).hexdigest()
                    return self.send(content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body)
            known = any(path.startswith(f"/{repo_id}/") for repo_id in repositories)
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, content: bytes, headers: dict[str, str], body: bool):
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    return Handler
