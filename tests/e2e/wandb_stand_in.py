"""A W&B server on loopback, as far as W&B's client asks it: it keeps the runs, their streams, and the artifacts that arrive."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "project", "name": "clvp_train", "entity": {"id": "entity", "name": "somebody"}}


@dataclass
class Server:
    """What it has received."""

    url: str = ""
    streams: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # run id -> file -> lines
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)  # id -> as it was created
    committed: set[str] = field(default_factory=set)  # ids of artifacts
    uploads: dict[str, bytes] = field(default_factory=dict)  # path -> content

    def history(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.streams[run].get("wandb-history.jsonl", [])]

    def stream(self, run: str, payload: dict[str, Any]) -> None:
        for name, chunk in payload.get("files", {}).items():
            self.streams[run].setdefault(name, [])[chunk["offset"] :] = chunk["content"]

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        match operation:
            case "RunResumeStatus":
                known = asked["name"] in self.streams
                return {"model": {**PROJECT, "bucket": self._bucket(asked["name"]) if known else None}}
            case "UpsertBucket":
                inserted = asked["name"] not in self.streams
                self.streams.setdefault(asked["name"], {})
                return {"upsertBucket": {"bucket": self._bucket(asked["name"]), "inserted": inserted}}
            case "Viewer":
                return {"viewer": {"id": "viewer", "username": "somebody", "entity": "somebody"}}
            case "ServerFeaturesQuery":
                return {"serverInfo": {"features": []}}
            case "CreateRunFiles":
                files = [{"name": name, "uploadUrl": self._place(asked["run"], name)} for name in asked["files"]]
                return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}
            case "CreateArtifact":
                id = f"artifact-{len(self.artifacts)}"
                self.artifacts[id] = asked["input"]
                artifact = {"id": id, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
                return {"createArtifact": {"artifact": artifact}}
            case "CreateArtifactManifest":
                file = self._file(asked["artifactID"], asked["name"])
                return {"createArtifactManifest": {"artifactManifest": {"id": asked["artifactID"], "file": file}}}
            case "CreateArtifactFiles":
                files = [self._file(file["artifactID"], file["name"]) for file in asked["input"]["artifactFiles"]]
                return {"createArtifactFiles": {"files": {"edges": [{"node": file} for file in files]}}}
            case "CommitArtifact":
                self.committed.add(asked["artifactID"])
                return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": ""}}}
            case _:
                return {}

    def _bucket(self, run: str) -> dict[str, Any]:
        history, events, log = (
            self.streams[run].get(name, []) for name in ("wandb-history.jsonl", "wandb-events.jsonl", "output.log")
        )
        names = {
            "id": f"id-{run}",
            "name": run,
            "displayName": run,
            "description": "",
            "sweepName": None,
            "notes": None,
        }
        counts = {"historyLineCount": len(history), "eventsLineCount": len(events), "logLineCount": len(log)}
        tails = {"historyTail": json.dumps(history[-1:]), "eventsTail": json.dumps(events[-1:])}
        begun = {"config": "{}", "summaryMetrics": "{}", "wandbConfig": '{"t": 1}', "tags": [], "project": PROJECT}
        return names | counts | tails | begun

    def _file(self, artifact: str, name: str) -> dict[str, Any]:
        file = {"id": name, "name": name, "displayName": name, "storagePath": name, "artifact": {"id": artifact}}
        return file | {"uploadUrl": self._place(artifact, name), "uploadHeaders": [], "uploadMultipartUrls": None}

    def _place(self, owner: str, name: str) -> str:
        return f"{self.url}/uploads/{owner}/{name}".replace(" ", "%20")


@contextmanager
def stand_in() -> Iterator[Server]:
    """Serves while the context lasts."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            server.uploads[self.path] = self._body()
            self._reply({})

        def do_POST(self) -> None:
            body, data = self._body(), {}
            if self.path == "/graphql":
                asked = json.loads(body)
                data = server.answer(asked["operationName"], asked.get("variables") or {})
            elif self.path.endswith("/file_stream"):  # /files/PROJECT/RUN/file_stream
                server.stream(self.path.split("/")[-2], json.loads(body))
            self._reply({"data": data})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _reply(self, answer: dict[str, Any]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield server
        http.shutdown()
