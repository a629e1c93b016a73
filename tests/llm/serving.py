"""A real language model behind a real server on this machine's loopback address."""

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.house.house import REPOSITORY

ENVIRONMENT = Path(os.environ.get("PASTURE_LLM_ENVIRONMENT", REPOSITORY / ".venv/llm"))
"""Made by `make test-llm`, unless the variable names another."""
MODEL = ENVIRONMENT / "SmolLM2-135M-Instruct"
NAME = "smollm2"
START_SECONDS = 600.0


@dataclass(frozen=True)
class Server:
    """Where it answers."""

    origin: str

    @property
    def base_url(self) -> str:
        """As engines want it."""
        return f"{self.origin}/v1"

    def answered(self) -> int:
        """Requests that vLLM has answered, by its own count."""
        with urllib.request.urlopen(f"{self.origin}/metrics") as response:  # noqa: S310 - http, on loopback
            lines = response.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith("vllm:request_success_total"))


@contextlib.contextmanager
def vllm_server(log: Path, *options: str, model: Path = MODEL, **variables: str) -> Iterator[Server]:
    """SmolLM2-135M-Instruct, or another model, behind vLLM, on one thread, for as long as the block runs.

    `options` are further arguments of the server, `variables` of its environment.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        str(ENVIRONMENT / "bin/python"), "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model), "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "bfloat16", "--enforce-eager", "--max-num-seqs", "16",
        # Else the log-probabilities are those before the logit bias, and only the chosen token's is sure to be there.
        "--logprobs-mode", "processed_logprobs",
        *options,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TORCHDYNAMO_DISABLE": "1",  # else counting ranks for log-probabilities compiles C++ first
        **variables,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            server = Server(f"http://127.0.0.1:{port}")
            _wait_for(server, process, log)
            yield server
        finally:
            process.terminate()
            process.wait()


def _wait_for(server: Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.origin}/health"):  # noqa: S310
            return
        if process.poll() is not None:
            break
        time.sleep(1.0)
    raise AssertionError(f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")
