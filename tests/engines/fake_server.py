"""An OpenAI-compatible server on loopback that answers by rule, misbehaves on demand and writes down what it bills.

Started as a process of its own: `with FakeServer(tmp_path / "ledger.jsonl") as server:`; what it does is set by
`server.behave(latency_seconds=0.2, faults={"429": 2})`. A call is billed, and so written to the ledger, at the moment
the server decides to answer it, whether or not the client lives to read the answer.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

KEY = "sk-SENTINEL-4f1c9a7e55d2"  # what the server expects; no artefact may ever hold it
PATIENCE_SECONDS = 120.0
"""For the answer of a server that shares two cores with a dozen busy processes."""
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Behaviour:
    latency_seconds: float = 0.0
    answer: str = "verdict"
    """'verdict' (m or M by the prompt's hash), 'echo' (the last message), or the text itself."""
    faults: dict[str, int] = dataclasses.field(default_factory=dict)
    """Tries of every prompt that go wrong before one goes right, by kind and in this order."""
    faulty_share: float = 1.0
    """Share of prompts (by hash) that meet the faults."""
    retry_after: str | None = None
    requests_per_second: int = 0
    """Above it: 429; 0 is no limit."""
    refuses: tuple[str, ...] = ()
    """Parameters answered by 400, as OpenAI words it; 'json_schema' and 'json_object' name response formats."""
    as_llama_cpp: bool = False
    """Whether it refuses, and tells token ids, as the server of llama-cpp-python 0.3.36 was seen to."""
    silently_lacks: tuple[str, ...] = ()
    """Parameters that are ignored, such as 'logprobs'."""
    batch_polls: int = 1
    """Polls until a batch is complete."""


class State:
    def __init__(self, ledger: Path, key: str) -> None:
        self.ledger = ledger
        self.key = key
        self.behaviour = Behaviour()
        self.tries: Counter[str] = Counter()
        self.second: tuple[int, int] = (0, 0)
        self.in_flight = 0
        self.most_in_flight = 0
        self.requests = 0
        self.peers: set[tuple[str, int]] = set()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}

    def bill(self, prompt: str, model: str, **facts: object) -> None:
        line = json.dumps({"prompt": hashlib.sha256(prompt.encode()).hexdigest()[:16], "model": model, **facts})
        with self.ledger.open("ab", buffering=0) as file:
            file.write(line.encode() + b"\n")


def prompt_of(body: dict[str, Any]) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in body["messages"])


def answer_to(body: dict[str, Any], behaviour: Behaviour) -> tuple[str, list[tuple[str, float]]]:
    """The text, and the alternatives with log-probabilities of its one token."""
    prompt = prompt_of(body)
    if behaviour.answer == "echo":
        return str(body.get("prompt") or body["messages"][-1]["content"]), []
    if behaviour.answer != "verdict":
        return behaviour.answer, []
    first = hashlib.sha256(prompt.encode()).digest()[0] % 2 == 0
    return ("m" if first else "M"), [("m" if first else "M", -0.25), ("M" if first else "m", -1.5)]


def usage_of(prompt: str, text: str) -> dict[str, Any]:
    given, made = len(prompt) // 4 + 1, len(text) // 4 + 1
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def answer_body(body: dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
    text, top = answer_to(body, behaviour)
    common = {"id": "x", "created": 0, "model": body["model"], "usage": usage_of(prompt_of(body), text)}
    wanted = bool(body.get("logprobs")) and "logprobs" not in behaviour.silently_lacks
    top = top or [(text, -0.1)]
    if "prompt" in body:
        block = {"tokens": [text], "token_logprobs": [top[0][1]], "top_logprobs": [dict(top)]} if wanted else None
        choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": block}
        return {"object": "text_completion", "choices": [choice], **common}
    content = [
        {
            "token": text,
            "logprob": top[0][1],
            "bytes": None,
            "top_logprobs": [{"token": token, "logprob": value, "bytes": None} for token, value in top],
        }
    ]
    message = {"role": "assistant", "content": text}
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": "stop",
        "logprobs": {"content": content} if wanted else None,
    }
    return {"object": "chat.completion", "choices": [choice], **common}


def error_body(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


class Truncated(Response):
    """Promises more bytes than it sends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"id": "x", "choi', "more_body": False})


def bomb() -> bytes:
    """A quarter of a gigabyte of spaces inside a JSON object, a quarter of a megabyte on the wire."""
    return gzip.compress(b'{"padding": "' + b" " * 2**28, compresslevel=6)


REFUSALS = {
    "400": (400, error_body("This request cannot be served.")),
    "too long": (400, error_body("This model's maximum context length is 4096 tokens.", "context_length_exceeded")),
    "filter": (400, error_body("The response was filtered.", "content_filter")),
    "quota": (429, error_body("You exceeded your quota.", "insufficient_quota")),
    "error in 200": (200, {"error": {"message": "upstream is overloaded", "code": 503}}),
    "empty": (200, {"id": "x", "choices": [], "usage": None}),
}


def faulty(kind: str, state: State, prompt: str, model: str) -> Response:
    if kind in REFUSALS:
        status, body = REFUSALS[kind]
        return JSONResponse(body, status_code=status)
    match kind:
        case "leaky 401" | "leaky 500":
            return JSONResponse(error_body(f"Incorrect API key provided: {state.key}."), status_code=int(kind[-3:]))
        case "leaky filter":
            escaped = state.key.replace("-", "\\u002d")  # the same text to whoever parses it
            told = f'"message": "{"." * 1990}{escaped}", "code": "content_filter", "param": "{escaped}"'
            return Response(f'{{"error": {{{told}}}}}', status_code=400, media_type="application/json")
        case "html":
            return Response("<html><body>Bad gateway</body></html>", media_type="text/html")
        case "cut":  # the answer was made, and is billed, but its end never arrives
            state.bill(prompt, model, lost=True)
            return Truncated()
        case "bomb":
            return Response(bomb(), headers={"content-encoding": "gzip"}, media_type="application/json")
    retry_after = state.behaviour.retry_after
    headers = {"retry-after": retry_after} if retry_after is not None else {}
    return JSONResponse(error_body(f"fault {kind}"), status_code=int(kind), headers=headers)


def refused(body: dict[str, Any], behaviour: Behaviour) -> Response | None:
    form = (body.get("response_format") or {}).get("type")
    for name in behaviour.refuses:
        if name == form:
            if behaviour.as_llama_cpp:
                message = (
                    "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
                    f"'msg': \"Input should be 'text' or 'json_object'\", 'input': '{name}'}}"
                )
                return JSONResponse(error_body(message), status_code=500)
            message = f"Invalid parameter: 'response_format' of type '{name}' is not supported with this model."
            return JSONResponse(error_body(message, None, "response_format"), status_code=400)
        if name in body and behaviour.as_llama_cpp:
            message = (
                f"1 validation error:\n  {{'type': 'less_than_equal', 'loc': ('body', '{name}'), 'msg': 'Input ...'}}"
            )
            return JSONResponse(error_body(message), status_code=500)
        if name in body:
            hint = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
            message = f"Unsupported parameter: '{name}' is not supported with this model.{hint}"
            return JSONResponse(error_body(message, "unsupported_parameter", name), status_code=400)
    return None


def next_fault(state: State, key: str) -> str | None:
    """The fault that this try of the prompt meets."""
    behaviour = state.behaviour
    drawn = int.from_bytes(hashlib.sha256(b"fault" + key.encode()).digest()[:4], "big") / 2**32
    if drawn < behaviour.faulty_share:
        before = state.tries[key]
        for kind, count in behaviour.faults.items():
            if before < count:
                state.tries[key] += 1
                return kind
            before -= count
    return None


def over_the_rate(state: State) -> bool:
    now = int(time.monotonic())
    state.second = (now, state.second[1] + 1) if state.second[0] == now else (now, 1)
    return bool(state.behaviour.requests_per_second) and state.second[1] > state.behaviour.requests_per_second


async def complete(request: Request) -> Response:
    state: State = request.app.state.fake
    behaviour = state.behaviour
    state.requests += 1
    if request.client is not None:
        state.peers.add((request.client.host, request.client.port))
    if request.headers.get("authorization") != f"Bearer {state.key}":
        return JSONResponse(error_body("Incorrect API key provided.", "invalid_api_key"), status_code=401)
    body = await request.json()
    if body["model"] == "no-such-model":
        return JSONResponse(error_body("The model 'no-such-model' does not exist", "model_not_found"), status_code=404)
    if (refusal := refused(body, behaviour)) is not None:
        return refusal
    if over_the_rate(state):
        headers = {"retry-after": behaviour.retry_after or "1"}
        return JSONResponse(error_body("Rate limit reached"), status_code=429, headers=headers)
    prompt = prompt_of(body)
    if (kind := next_fault(state, prompt)) is not None:
        return faulty(kind, state, prompt, body["model"])
    state.in_flight += 1
    state.most_in_flight = max(state.most_in_flight, state.in_flight)
    try:
        state.bill(prompt, body["model"])
        if behaviour.latency_seconds:
            await asyncio.sleep(behaviour.latency_seconds)
        return JSONResponse(answer_body(body, behaviour))
    finally:
        state.in_flight -= 1


async def messages(request: Request) -> Response:
    """Anthropic's protocol."""
    state: State = request.app.state.fake
    state.requests += 1
    if state.key not in (request.headers.get("x-api-key"), request.headers.get("authorization", "")[len("Bearer ") :]):
        failure = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
        return JSONResponse(failure, status_code=401)
    body = await request.json()
    if (refusal := refused(body, state.behaviour)) is not None:
        return refusal
    prompt = prompt_of(body)
    if (kind := next_fault(state, prompt)) is not None:
        return faulty(kind, state, prompt, body["model"])
    state.bill(prompt, body["model"])
    text, _ = answer_to(body, state.behaviour)
    counted = {"input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 0}
    answer = {"type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn"}
    answer |= {"id": "x", "content": [{"type": "text", "text": text + str(body.get("system", ""))}], "usage": counted}
    return JSONResponse(answer)


async def control(request: Request) -> Response:
    state: State = request.app.state.fake
    if request.method == "POST":
        state.behaviour = Behaviour(**await request.json())
        state.tries.clear()
        state.most_in_flight = state.requests = 0
        state.peers.clear()
    facts = {"most_in_flight": state.most_in_flight, "requests": state.requests, "connections": len(state.peers)}
    facts["in_flight"] = state.in_flight
    return JSONResponse(facts)


async def upload(request: Request) -> Response:
    state: State = request.app.state.fake
    async with request.form() as form:
        file = form["file"]
        assert not isinstance(file, str)
        name = f"file-{len(state.files)}"
        state.files[name] = await file.read()
    return JSONResponse({"id": name, "object": "file", "bytes": len(state.files[name]), "purpose": "batch"})


async def submit(request: Request) -> Response:
    state: State = request.app.state.fake
    body = await request.json()
    name = f"batch-{len(state.batches)}"
    state.batches[name] = {"polls": 0, "metadata": body.get("metadata"), **body}
    lines = [json.loads(line) for line in state.files[body["input_file_id"]].splitlines()]
    made = []
    for line in reversed(lines):  # results come in any order
        prompt = prompt_of(line["body"])
        if (kind := next_fault(state, prompt)) is not None:
            refusal = {"status_code": int(kind), "body": error_body(f"fault {kind}")}
            made.append({"custom_id": line["custom_id"], "response": refusal, "error": None})
            continue
        state.bill(prompt, line["body"]["model"], batch=name)
        answered = {"status_code": 200, "body": answer_body(line["body"], state.behaviour)}
        made.append({"custom_id": line["custom_id"], "response": answered, "error": None})
    for part, rows in (
        ("output", [r for r in made if r["response"]["status_code"] == 200]),
        ("error", [r for r in made if r["response"]["status_code"] != 200]),
    ):
        if rows:
            state.files[f"{name}-{part}"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return JSONResponse(batch_row(state, name))


def batch_row(state: State, name: str) -> dict[str, Any]:
    batch = state.batches[name]
    done = batch["polls"] >= state.behaviour.batch_polls
    row = {"id": name, "object": "batch", "endpoint": batch["endpoint"], "metadata": batch["metadata"], "created_at": 0}
    row |= {"input_file_id": batch["input_file_id"], "completion_window": "24h"}
    row["status"] = "completed" if done else "in_progress"
    for part in ("output", "error"):
        if done and f"{name}-{part}" in state.files:
            row[f"{part}_file_id"] = f"{name}-{part}"
    return row


async def poll(request: Request) -> Response:
    state: State = request.app.state.fake
    name = request.path_params["name"]
    state.batches[name]["polls"] += 1
    return JSONResponse(batch_row(state, name))


async def list_batches(request: Request) -> Response:
    state: State = request.app.state.fake
    rows = [batch_row(state, name) for name in state.batches]
    return JSONResponse({"object": "list", "data": rows, "has_more": False})


async def download(request: Request) -> Response:
    state: State = request.app.state.fake
    return PlainTextResponse(state.files[request.path_params["name"]])


async def tokenize(request: Request) -> Response:
    """As vLLM's: here every character is a token, its code point the id."""
    state: State = request.app.state.fake
    body = await request.json()
    if state.behaviour.as_llama_cpp:
        found = "input" in body and request.url.path == "/extras/tokenize"
        ids = {"tokens": [ord(letter) for letter in body["input"]]} if found else {"detail": "Not Found"}
        return JSONResponse(ids, status_code=200 if found else 404)
    return JSONResponse({"tokens": [ord(letter) for letter in body["prompt"]], "count": len(body["prompt"])})


def build(ledger: Path, key: str) -> Starlette:
    routes = [
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route("/v1/completions", complete, methods=["POST"]),
        Route("/v1/messages", messages, methods=["POST"]),
        Route("/v1/files", upload, methods=["POST"]),
        Route("/v1/files/{name}/content", download),
        Route("/v1/batches", submit, methods=["POST"]),
        Route("/v1/batches", list_batches),
        Route("/v1/batches/{name}", poll),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/extras/tokenize", tokenize, methods=["POST"]),
        Route("/control", control, methods=["GET", "POST"]),
    ]
    app = Starlette(routes=routes)
    app.state.fake = State(ledger, key)
    return app


class FakeServer:
    """The server in a process of its own, for as long as the `with` block lasts."""

    def __init__(self, ledger: Path, key: str = KEY) -> None:
        self.ledger = ledger
        self.key = key

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.engines.fake_server", str(self.ledger)]
        environment = {**os.environ, "FAKE_SERVER_KEY": self.key, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.origin = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.origin}/v1"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def behave(self, **changes: Any) -> None:
        """Set the behaviour (fields of `Behaviour`, the rest at default) and forget what was counted."""
        data = json.dumps(changes).encode()
        call = urllib.request.Request(f"{self.origin}/control", data, {"content-type": "application/json"})  # noqa: S310
        urllib.request.urlopen(call, timeout=PATIENCE_SECONDS).close()  # noqa: S310

    def counts(self) -> dict[str, int]:
        """Requests, connections and most in flight since `behave`, and how many are in flight now."""
        with urllib.request.urlopen(f"{self.origin}/control", timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            counted: dict[str, int] = json.load(answer)
        return counted

    def billed(self) -> list[dict[str, Any]]:
        """The ledger's rows."""
        if not self.ledger.exists():
            return []
        return [json.loads(line) for line in self.ledger.read_text().splitlines()]

    def billed_count(self) -> int:
        """Rows of the ledger, without reading them: cheap enough to be asked again and again."""
        return self.ledger.read_bytes().count(b"\n") if self.ledger.exists() else 0

    @contextlib.contextmanager
    def fresh_ledger(self) -> Iterator[None]:
        """Begin with an empty ledger."""
        self.ledger.unlink(missing_ok=True)
        yield


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ledger", type=Path)
    app = build(parser.parse_args().ledger, os.environ["FAKE_SERVER_KEY"])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", access_log=False, backlog=4096
    )  # faster with httptools and uvloop, where they are installed
    server = uvicorn.Server(config)
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it on, each answer waits 40 ms for the
    # client's delayed acknowledgement of its head.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(4096)  # from here on a client may connect and wait
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    asyncio.run(server.serve(sockets=[listening]))


if __name__ == "__main__":
    main()
