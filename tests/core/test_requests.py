import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from pasture.core.requests import Message, Reply, Request

HELLO = (Message(role="user", content="hello"),)


def test_the_hash_is_that_of_the_fields_that_were_set():
    request = Request(model="m", messages=HELLO, temperature=0, sample=2)
    # Written by hand: a change of this text makes every stored answer worthless.
    expected = '{"model":"m","messages":[{"role":"user","content":"hello"}],"temperature":0.0,"sample":2}'
    assert request.canonical_json == expected
    assert request.request_hash == hashlib.sha256(expected.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"messages": (Message(role="user", content="hello "),)},
        {"messages": (Message(role="system", content="hello"),)},
        {"max_completion_tokens": 1},
        {"temperature": 1.0},
        {"top_p": 0.5},
        {"seed": 0},
        {"stop": ("\n",)},
        {"logit_bias": {"a": 7.0}},
        {"top_logprobs": 0},
        {"json_schema": {"type": "object"}},
        {"extra": {"reasoning_effort": "low"}},
        {"sample": 1},
        {"asked_by": "judge"},
    ],
)
def test_every_field_takes_part_in_the_hash(change):
    base: dict[str, Any] = {"model": "m", "messages": HELLO}
    assert Request(**{**base, **change}).request_hash != Request(**base).request_hash


def test_order_of_logit_biases_does_not_matter_but_order_in_a_schema_does():
    def hashed(**fields: Any) -> str:
        return Request(model="m", prompt="p", **fields).request_hash

    assert hashed(logit_bias={"a": 1, "b": 2}) == hashed(logit_bias={"b": 2, "a": 1})
    # Services write the properties in the schema's order: reason first or verdict first are different questions.
    schemas: list[dict[str, Any]] = [{"properties": {"a": {}, "b": {}}}, {"properties": {"b": {}, "a": {}}}]
    assert hashed(json_schema=schemas[0]) != hashed(json_schema=schemas[1])


def test_a_request_survives_the_disk():
    request = Request(
        model="m", messages=HELLO, logit_bias={"a": 7.0}, top_logprobs=5, json_schema={"type": "object"}, stop=("x",)
    )
    back = Request.model_validate_json(request.canonical_json)
    assert back == request
    assert back.request_hash == request.request_hash
    assert json.loads(request.to_json())["sample"] == 0


@pytest.mark.parametrize("fields", [{}, {"prompt": "p", "messages": HELLO}, {"messages": ()}])
def test_a_request_is_a_conversation_or_a_text_to_continue(fields):
    with pytest.raises(ValidationError, match="messages"):
        Request(model="m", **fields)


def test_a_reply_with_an_error_has_failed():
    assert Reply(error="429").failed
    assert not Reply(text="").failed
