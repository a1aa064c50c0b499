"""A server on loopback that speaks the OpenAI protocol and answers what it was told to, in order."""

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny-1.5-0715"


@dataclass
class Reply:
    """What one request is answered with. Streamed, every entry of `pieces` is a chunk of its own."""

    pieces: tuple[str, ...] = ()
    calls: tuple[tuple[str, str, str], ...] = ()
    """Tool calls: id, name, arguments; streamed, the arguments come in two chunks."""
    status: int = 200
    choices: int = 1
    drop_after: int | None = None
    """Streamed: the connection is cut after so many chunks."""
    refusal: str | None = None
    gate: threading.Event | None = None
    """Streamed: waited for before the last chunk."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def says(*pieces: str, **settings: Any) -> Reply:
    return Reply(pieces, **settings)


def calls(call_id: str, name: str, arguments: str, **settings: Any) -> Reply:
    return Reply(calls=((call_id, name, arguments),), **settings)


@dataclass
class OpenAIServer:
    """`replies` is used up in order; when it is empty, the last user message is answered with itself."""

    replies: deque[Reply] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def will(self, *replies: Reply) -> None:
        self.replies.extend(replies)

    def next(self, request: dict[str, Any]) -> Reply:
        self.requests.append(request)
        if self.replies:
            return self.replies.popleft()
        asked = request.get("messages") or request.get("input")
        return says(asked if isinstance(asked, str) else str(asked[-1]["content"]))


@contextmanager
def openai_server() -> Iterator[OpenAIServer]:
    script = OpenAIServer()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = script.next(request)
            if reply.status != 200:
                self.send_json({"error": {"message": "not now", "type": "server", "code": None}}, reply.status)
            elif self.path.endswith("/embeddings"):
                self.send_json(embedding())
            elif self.path.endswith("/responses"):
                self.send_events(response_events(reply), reply) if request.get("stream") else self.send_json(
                    response(reply)
                )
            elif request.get("stream"):
                self.send_events(chunks(request, reply), reply)
            else:
                self.send_json(completion(reply))

        def send_json(self, value: dict[str, Any], status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def send_events(self, events: list[dict[str, Any]], reply: Reply) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")  # also closes it here
            self.end_headers()
            for place, event in enumerate(events):
                if place == reply.drop_after:
                    return
                if reply.gate and place == len(events) - 1:
                    reply.gate.wait(10)
                name = f"event: {event['type']}\n" if "type" in event else ""
                self.send_piece(f"{name}data: {json.dumps(event)}\n\n")
            self.send_piece("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def send_piece(self, text: str) -> None:
            data = text.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            """A client that left in the middle is part of the tests."""

    server = Server(("127.0.0.1", 0), Answer)
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": reply.refusal}
    if reply.calls:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for call_id, name, arguments in reply.calls
        ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {"index": i, "message": message, "finish_reason": "tool_calls" if reply.calls else "stop"}
            for i in range(reply.choices)
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


def chunks(request: dict[str, Any], reply: Reply) -> list[dict[str, Any]]:
    def chunk(delta: dict[str, Any], index: int = 0, finish: str | None = None) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
        }

    found = [chunk({"role": "assistant", "content": ""}, i) for i in range(reply.choices)]
    found += [chunk({"content": piece}, i) for piece in reply.pieces for i in range(reply.choices)]
    for place, (call_id, name, arguments) in enumerate(reply.calls):
        half = len(arguments) // 2
        first = {"index": place, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        found.append(chunk({"tool_calls": [first]}))
        found += [
            chunk({"tool_calls": [{"index": place, "function": {"arguments": part}}]})
            for part in (arguments[:half], arguments[half:])
        ]
    found += [chunk({}, i, "tool_calls" if reply.calls else "stop") for i in range(reply.choices)]
    if (request.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
        found.append({**chunk({}), "choices": [], "usage": usage})
    return found


def response(reply: Reply) -> dict[str, Any]:
    output: list[dict[str, Any]] = [
        {"type": "function_call", "id": f"fc_{i}", "call_id": i, "name": name, "arguments": text, "status": "completed"}
        for i, name, text in reply.calls
    ]
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        output.append(
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
        )
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": MODEL,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "output": output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 18,
        },
    }


def response_events(reply: Reply) -> list[dict[str, Any]]:
    whole = response(reply)
    started = {**whole, "status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    events = [{"type": "response.created", "response": started}]
    events += [{"type": "response.output_text.delta", "delta": piece, **place} for piece in reply.pieces]
    events.append({"type": "response.completed", "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def embedding() -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
        "model": MODEL,
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
