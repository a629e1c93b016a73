"""A server in this process that speaks what is used of vLLM's protocol, over a tiny model and Pasture's own sampler.

So a training that draws from it must do just what one does that draws from its policy. It can be told to misbehave.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from pasture.models.load import load_causal_lm, load_tokenizer
from pasture.models.sample import SamplerConfig, sample


class FakeVllm:
    """What is served, what was asked, and which faults there are."""

    def __init__(self, folder: Path, faults: set[str]) -> None:
        self.folder, self.faults = folder, faults
        self.tokenizer = load_tokenizer(folder)
        self.weights: Any = load_causal_lm(folder)
        self.adapted: Any = None
        self.asked: list[tuple[str, Any]] = []
        self.loaded: list[str] = []
        self.shift = 0.0
        """Added to every log-probability that is told: the noise of another engine, in its simplest form."""
        self._one_at_a_time = threading.Lock()

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON (or text) for a question."""
        with self._one_at_a_time:
            self.asked.append((path, body))
            known = {
                "/v1/models": self._models,
                "/tokenize": self._tokenize,
                "/v1/completions": self._complete,
                "/v1/load_lora_adapter": self._load_adapter,
                "/v1/unload_lora_adapter": self._unload_adapter,
                "/collective_rpc": self._rpc,
                "/reset_prefix_cache": lambda body: (200, {"success": "busy" not in self.faults}),
            }
            missing = {"no adapters": "/v1/load_lora_adapter", "no reload": "/collective_rpc"}
            if path not in known or path in {missing.get(fault) for fault in self.faults}:
                return 404, {"detail": "Not Found"}
            return known[path](body)

    def _models(self, body: Any) -> tuple[int, Any]:
        names = ["tiny", "other"] if "two models" in self.faults else ["tiny"]
        cards = [{"id": name, "root": str(self.folder), "parent": None, "max_model_len": 64} for name in names]
        if self.adapted is not None:
            cards.append({"id": "adapter", "root": "x", "parent": "tiny"})
        return 200, {"object": "list", "data": cards}

    def _tokenize(self, body: Any) -> tuple[int, Any]:
        ids = self.tokenizer(body["prompt"], add_special_tokens=body["add_special_tokens"])["input_ids"]
        return 200, {"tokens": [0, *ids] if "vocabulary" in self.faults else ids}

    def _load_adapter(self, body: Any) -> tuple[int, Any]:
        assert body["load_inplace"] is True
        self.loaded.append(body["lora_path"])
        if "stale" not in self.faults or self.adapted is None:
            base = load_causal_lm(self.folder)
            self.adapted = PeftModel.from_pretrained(base, body["lora_path"]).merge_and_unload().eval()
        return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."

    def _unload_adapter(self, body: Any) -> tuple[int, Any]:
        self.adapted = None
        return 200, "Success"

    def _rpc(self, body: Any) -> tuple[int, Any]:
        assert body["method"] == "reload_weights"
        self.loaded.append(body["kwargs"]["weights_path"])
        if "stale" not in self.faults or len(self.loaded) == 1:
            self.weights = load_causal_lm(Path(body["kwargs"]["weights_path"]), tokenizer=self.tokenizer)
        return 200, {"results": [None]}

    def _complete(self, body: Any) -> tuple[int, Any]:
        if "flaky" in self.faults and len([path for path, _ in self.asked if path == "/v1/completions"]) % 3 == 0:
            return 503, {"error": {"message": "too much to do"}}
        model = self.weights if body["model"] == "tiny" else self.adapted
        config = SamplerConfig(temperature=body["temperature"], top_p=body["top_p"], max_new_tokens=body["max_tokens"])
        [drawn] = sample(model, body["stop_token_ids"], [body["prompt"]], [body["seed"]], config)
        choice: dict[str, Any] = {
            "index": 0,
            "text": "",
            "finish_reason": drawn.finish_reason,
            "token_ids": drawn.token_ids,
            "logprobs": {"token_logprobs": [value + self.shift for value in drawn.logprobs]},
        }
        if "old" in self.faults:
            del choice["token_ids"]
        if "short" in self.faults:
            choice["logprobs"]["token_logprobs"].pop()
        return 200, {"object": "text_completion", "choices": [choice]}


class _Handler(BaseHTTPRequestHandler):
    fake: FakeVllm
    protocol_version = "HTTP/1.1"

    def _respond(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        text = self.rfile.read(length) if length else b""
        status, content = self.fake.answer(self.path, json.loads(text) if text else None)
        plain = isinstance(content, str)
        payload = (content if plain else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain" if plain else "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = _respond

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the standard library's
        pass


@contextlib.contextmanager
def served(folder: Path, *faults: str) -> Iterator[tuple[FakeVllm, str]]:
    """The fake over the model in `folder`, and its address, for as long as the block runs."""
    torch.set_num_threads(torch.get_num_threads())  # the handlers' threads take this one's
    fake = FakeVllm(folder, set(faults))
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield fake, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
