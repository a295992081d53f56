"""A small stand-in for the Hugging Face Hub: serves model folders at the Hub's addresses, and takes new ones."""

import base64
import hashlib
import http.server
import json
from pathlib import Path
from typing import ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# The name of the account that every token belongs to.
ACCOUNT = "me"


def hub_handler(repositories: dict[str, Path], uploads: Path | None = None) -> type[http.server.BaseHTTPRequestHandler]:
    """Return a handler that serves `{repo_id: folder}` and lists the requests in `handler.requests`.

    Args:
        repositories: the models of the Hub; a repository that is created is added.
        uploads: folder for the repositories that are created; without one, none can be.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        requests: ClassVar[list[str]] = []
        private: ClassVar[set[str]] = set()

        def do_GET(self):
            path = self.path.split("?")[0]
            self.requests.append(f"{self.command} {path}")
            if path == "/api/whoami-v2":
                known = self.headers.get("Authorization")
                return self.send_json({"name": ACCOUNT, "type": "user"} if known else {}, 200 if known else 401)
            for repo_id, folder in repositories.items():
                files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
                about = f"/api/models/{repo_id}"
                if path.startswith(f"{about}/tree"):
                    facts = {"type": "file", "oid": "0" * 40}
                    sizes = {name: file.stat().st_size for name, file in files.items()}
                    return self.send_json([facts | {"path": name, "size": size} for name, size in sizes.items()])
                if path in (about, f"{about}/revision/main", f"{about}/revision/{COMMIT}"):
                    info = {"_id": repo_id, "id": repo_id, "sha": COMMIT, "private": repo_id in self.private}
                    return self.send_json(info | {"siblings": [{"rfilename": name} for name in files]})
                name = path.removeprefix(f"/{repo_id}/resolve/").partition("/")[2]
                if path.startswith(f"/{repo_id}/resolve/") and name in files:
                    content = files[name].read_bytes()
                    etag = hashlib.sha256(content).hexdigest()
                    return self.send(content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            known = any(path.startswith(f"/{repo_id}/") for repo_id in repositories)
            self.send(b"", {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"}, 404)

        do_HEAD = do_GET

        def do_POST(self):
            path = self.path.split("?")[0]
            self.requests.append(f"POST {path}")
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if path.endswith("/commit/main"):
                return self.commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), content)
            request = json.loads(content)
            if path == "/api/validate-yaml":
                return self.send_json({})
            if path == "/api/repos/create":
                return self.create(f"{request['organization'] or ACCOUNT}/{request['name']}", request.get("visibility"))
            if path.endswith("/preupload/main"):
                # Large files stand in the commit, too. The Hub itself stores them apart (LFS, Xet).
                mode = {"uploadMode": "regular", "shouldIgnore": False}
                return self.send_json({"files": [mode | {"path": file["path"]} for file in request["files"]]})
            self.send_json({}, 404)

        def create(self, repo_id: str, visibility: str | None):
            if uploads is None or not repo_id.startswith(f"{ACCOUNT}/"):
                reason = {"X-Error-Message": "You don't have the rights to create a model under this namespace"}
                return self.send(b"{}", reason, 403)
            address = {"url": f"http://{self.headers['Host']}/{repo_id}"}
            if repo_id in repositories:
                return self.send_json(address, 409)
            if visibility == "private":
                self.private.add(repo_id)
            repositories[repo_id] = uploads / repo_id
            self.send_json(address)

        def commit(self, repo_id: str, content: bytes):
            _header, *files = map(json.loads, content.splitlines())
            for value in (line["value"] for line in files):
                file = repositories[repo_id] / value["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(base64.b64decode(value["content"]))
            address = f"http://{self.headers['Host']}/{repo_id}/commit/{COMMIT}"
            self.send_json({"success": True, "commitOid": COMMIT, "commitUrl": address})

        def send_json(self, answer: dict | list, status: int = 200):
            self.send(json.dumps(answer).encode(), {"Content-Type": "application/json"}, status)

        def send(self, content: bytes, headers: dict[str, str], status: int = 200):
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    return Handler
