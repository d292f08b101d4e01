"""A Hub on loopback, for the real `huggingface_hub`: accounts, repositories, LFS uploads, commits, downloads.

It answers as the Hub's API does as far as this package and transformers use it, checks what it receives (tokens, sizes,
SHA-256, that a commit names uploaded objects only), and can break off uploads.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".parquet")
KINDS = {"models": "", "datasets": "datasets/"}


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=lambda: ["initial commit"])

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(self.commits).encode()).hexdigest()


@dataclass
class Hub:
    """What the Hub holds, and what it has seen.

    Fields:
        accounts: token -> what whoami says of it.
        break_uploads: how many uploads of objects still break off in the middle.
        gate: what uploads wait for.
        refuse: status and message with which the next commit is refused.
        requests: method and path of all that was asked for.
    """

    url: str = ""
    accounts: dict[str, dict] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)  # by kind and id, as in "models/me/clvp"
    objects: dict[str, bytes] = field(default_factory=dict)
    break_uploads: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    refuse: tuple[int, str] | None = None
    requests: list[str] = field(default_factory=list)

    def account(self, token: str, name: str, role: str = "write", organizations: dict[str, str] | None = None) -> None:
        orgs = [{"name": org, "roleInOrg": role, "type": "org"} for org, role in (organizations or {}).items()]
        access = {"displayName": "test", "role": role}
        self.accounts[token] = {
            "type": "user",
            "name": name,
            "fullname": name,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": access},
        }

    def writers(self, token: str | None) -> set[str]:
        """The namespaces that the bearer of a token may write to."""
        who = self.accounts.get(token or "")
        if who is None or who["auth"]["accessToken"]["role"] != "write":
            return set()
        return {who["name"], *(org["name"] for org in who["orgs"] if org["roleInOrg"] in ("admin", "write"))}


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    hub = Hub()
    hub.gate.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._route("GET")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._route("POST")

    def do_PUT(self) -> None:
        self._route("PUT")

    def _route(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        for wanted, pattern, answer in ROUTES:
            if wanted == method and (match := re.fullmatch(pattern, path)):
                answer(self, **match.groupdict())
                return
        self._error(404, f"no such page: {method} {path}")

    # what is asked and what is answered

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, value: object, status: int = 200) -> None:
        self._bytes(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _bytes(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _error(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        self._bytes(json.dumps({"error": message}).encode(), status, headers | ({"X-Error-Code": code} if code else {}))

    def _repository(self, kind: str, name: str) -> Repository | None:
        """None, and the answer is given, if there is none that this token may see."""
        repository = self.hub.repositories.get(f"{kind}/{name}")
        if repository is None or (repository.private and name.split("/")[0] not in self._readable()):
            self._error(404, "Repository not found", "RepoNotFound")
            return None
        return repository

    def _readable(self) -> set[str]:
        who = self.hub.accounts.get(self.token or "")
        return {who["name"], *(org["name"] for org in who["orgs"])} if who else set()

    def _may_write(self, name: str) -> bool:
        if name.split("/")[0] in self.hub.writers(self.token):
            return True
        status = 403 if self.token in self.hub.accounts else 401
        self._error(status, f"You don't have the rights to write to {name}")
        return False

    # the API

    def whoami(self) -> None:
        who = self.hub.accounts.get(self.token or "")
        if who is None:
            self._error(401, "Invalid username or password.")
        else:
            self._json(who)

    def validate(self) -> None:
        content = json.loads(self._body())["content"]
        try:
            metadata = yaml.safe_load(content.split("---")[1])
            assert isinstance(metadata, dict) and metadata["license"]
        except (IndexError, KeyError, AssertionError, yaml.YAMLError) as error:
            self._json({"errors": [{"message": f"bad metadata: {error!r}"}], "warnings": []}, 400)
        else:
            self._json({"errors": [], "warnings": []})

    def create(self) -> None:
        asked = json.loads(self._body())
        name = f"{asked['organization'] or self.hub.accounts[self.token]['name']}/{asked['name']}"
        key = f"{asked.get('type', 'model')}s/{name}"
        if not self._may_write(name):
            return
        if key in self.hub.repositories:
            self._bytes(json.dumps({"error": "exists", "url": f"{self.hub.url}/{name}"}).encode(), 409)
            return
        self.hub.repositories[key] = Repository(asked.get("visibility") == "private" or asked.get("private") is True)
        self._json({"url": f"{self.hub.url}/{KINDS[key.split('/')[0]]}{name}"})

    def info(self, kind: str, name: str, revision: str = "main") -> None:
        if repository := self._repository(kind, name):
            siblings = [{"rfilename": path} for path in repository.files]
            self._json(
                {"id": name, "sha": repository.sha, "private": repository.private, "siblings": siblings, "tags": []}
            )

    def tree(self, kind: str, name: str, revision: str) -> None:
        if repository := self._repository(kind, name):
            entries = []
            for path, data in repository.files.items():
                entries.append({"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()})
                if path.endswith(LFS_SUFFIXES):
                    digest = hashlib.sha256(data).hexdigest()
                    entries[-1]["lfs"] = {"size": len(data), "oid": digest, "pointerSize": 130}
            self._json(entries)

    def auth_check(self, kind: str, name: str, write: str | None) -> None:
        body = self._body()
        if self._repository(kind, name) and (not (write or b"write" in body) or self._may_write(name)):
            self._json({})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        files = json.loads(self._body())["files"]
        if self._repository(kind, name) and self._may_write(name):
            modes = [("lfs" if item["path"].endswith(LFS_SUFFIXES) else "regular", item["path"]) for item in files]
            self._json({"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for mode, p in modes]})

    def lfs_batch(self, name: str) -> None:
        asked = json.loads(self._body())["objects"]
        if self._may_write(name.removeprefix("datasets/")):
            url = f"{self.hub.url}/lfs-objects/"
            objects = [
                {"oid": item["oid"], "size": item["size"]}
                | ({} if item["oid"] in self.hub.objects else {"actions": {"upload": {"href": url + item["oid"]}}})
                for item in asked
            ]
            self._json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        length = int(self.headers["Content-Length"])
        self.hub.gate.wait(60)
        if self.hub.break_uploads > 0:
            self.hub.break_uploads -= 1
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        data = self.rfile.read(length)
        if hashlib.sha256(data).hexdigest() != oid:
            self._error(400, "the object has another digest than its name")
            return
        self.hub.objects[oid] = data
        self._bytes(b"")

    def commit(self, kind: str, name: str, revision: str) -> None:
        lines = [json.loads(line) for line in self._body().splitlines()]
        repository = self._repository(kind, name)
        if repository is None or not self._may_write(name):
            return
        if self.hub.refuse is not None:
            refused, self.hub.refuse = self.hub.refuse, None
            self._error(*refused)
            return
        files, title = dict(repository.files), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                title = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif line["key"] == "lfsFile":
                if len(self.hub.objects.get(value["oid"], b"")) != value["size"]:
                    self._error(400, f"{value['path']} names an object that was not uploaded")
                    return
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                self._error(400, f"unknown operation {line['key']}")
                return
        repository.files, repository.commits = files, [*repository.commits, title]
        url = f"{self.hub.url}/{KINDS[kind]}{name}/commit/{repository.sha}"
        self._json({"success": True, "commitOid": repository.sha, "commitUrl": url})

    def resolve(self, prefix: str | None, name: str, revision: str, path: str) -> None:
        repository = self._repository("datasets" if prefix else "models", name)
        if repository is None:
            return
        headers = {"X-Repo-Commit": repository.sha}
        if path not in repository.files:
            self._bytes(b"", 404, headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        data = repository.files[path]
        self._bytes(data, 200, headers | {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "none"})


NAME = r"(?P<name>[^/]+/[^/]+)"
REPOSITORY = rf"/api/(?P<kind>models|datasets)/{NAME}"
ROUTES = (
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", "/api/repos/create", Handler.create),
    ("GET", rf"{REPOSITORY}(?:/revision/(?P<revision>[^/]+))?", Handler.info),
    ("GET", rf"{REPOSITORY}/tree/(?P<revision>[^/]+)/?", Handler.tree),
    ("GET", rf"{REPOSITORY}/auth-check(?P<write>/write)?", Handler.auth_check),
    ("POST", rf"{REPOSITORY}/auth-check(?P<write>/write)?", Handler.auth_check),
    ("POST", rf"{REPOSITORY}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", r"/(?P<name>(?:datasets/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs-objects/(?P<oid>[0-9a-f]{64})", Handler.upload),
    ("POST", rf"{REPOSITORY}/commit/(?P<revision>[^/]+)", Handler.commit),
    ("GET", rf"/(?P<prefix>datasets/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
)
