"""A program that asks a server many things through a store, to be killed: see test_guarantees."""

import json
import sys
from pathlib import Path

from pasture.core import store as store_module
from pasture.core.store import AnswerStore
from pasture.engines.api import ApiEngine
from pasture.engines.cached import CachedEngine
from pasture.engines.settings import Address, ApiSettings
from tests.engines.conftest import KEY_ENV, ask


def main(base_url: str, path: Path, count: int, in_flight: int, reserve_bytes: int) -> None:
    store_module.RESERVE_BYTES = reserve_bytes
    settings = ApiSettings(
        endpoints=(Address(base_url=base_url, api_key_env=KEY_ENV),), in_flight=in_flight, max_retry_seconds=60
    )
    with AnswerStore(path) as store, ApiEngine(settings) as api:
        engine = CachedEngine(api, store)
        print("ready", flush=True)  # noqa: T201
        texts = [reply.text for reply in engine.run(ask(f"question {n} " + "x" * 500) for n in range(count))]
    print(json.dumps(texts), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6]))
