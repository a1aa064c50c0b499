"""As much of a W&B server as its client needs to start, resume and feed a run."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """`rows` is the history it was sent. While `down`, it answers 503 and sets `refused`.

    A streamer under test that is idle asks for /idle: the answer waits until the function `on_idle` has returned.
    """

    def __init__(self):
        self.rows, self.config, self.exit_code = [], {}, None
        self.down, self.refused = False, threading.Event()
        self.on_idle = lambda: None
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_under_test": self}))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()

    def file_stream(self, request):
        history = request.get("files", {}).get("wandb-history.jsonl")
        if history:
            self.rows[history["offset"] :] = [json.loads(line) for line in history["content"]]
        self.exit_code = request.get("exitcode", self.exit_code)
        return {}

    def graphql(self, request):
        query, variables = request["query"], request.get("variables", {})
        entity = {"id": "e", "name": "me"}
        if "RunResumeStatus" in query:
            return {"data": {"model": {"id": "p", "name": "p", "entity": entity, "bucket": self._bucket(variables)}}}
        if "UpsertBucket" in query:
            self.config = json.loads(variables["config"] or "{}")
            run = {"id": "r", "name": variables["name"], "displayName": "d", "description": "", "config": "{}"}
            run |= {"sweepName": None, "project": {"id": "p", "name": "p", "entity": entity}}
            run |= {"historyLineCount": len(self.rows)}
            return {"data": {"upsertBucket": {"bucket": run, "inserted": not self.rows}}}
        if "CreateRunFiles" in query:
            return {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}}
        return {"data": {}}

    def _bucket(self, variables):
        if not self.rows:
            return None
        tail = json.dumps([json.dumps(row) for row in self.rows[-1:]])
        counts = {"historyLineCount": len(self.rows), "eventsLineCount": 0, "logLineCount": 0}
        texts = {
            "historyTail": tail,
            "eventsTail": "[]",
            "summaryMetrics": "{}",
            "config": "{}",
            "wandbConfig": '{"t": 1}',
        }
        return {"id": "r", "name": variables["name"], "displayName": "d", "tags": [], "notes": "", **counts, **texts}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_under_test: Server

    def do_HEAD(self):
        self._answer(503 if self.server_under_test.down else 200, {})

    def do_GET(self):
        self.server_under_test.on_idle()
        self._answer(200, {})

    def do_POST(self):
        server = self.server_under_test
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if server.down:
            server.refused.set()
            self._answer(503, {})
        elif self.path.endswith("/file_stream"):
            self._answer(200, server.file_stream(json.loads(body)))
        elif self.path == "/graphql":
            self._answer(200, server.graphql(json.loads(body)))
        else:
            self._answer(404, {})

    def _answer(self, status, document):
        body = b"" if self.command == "HEAD" else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
