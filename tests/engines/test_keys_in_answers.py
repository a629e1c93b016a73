"""A key that a server spells in JSON's escapes is a key once the JSON is read: it is cut out then."""

import httpx2

from pasture.core.redaction import remember_secret
from pasture.engines import endpoint

KEY = "sk-spelled-in-escapes-1"
SPELLED = KEY.replace("-", "\\u002d")


def test_a_key_spelled_in_escapes_is_cut_out_of_every_text_and_name_of_an_answer() -> None:
    remember_secret(KEY)
    body = f'{{"choices": [{{"text": "it is {SPELLED}"}}], "{SPELLED}": 1}}'
    assert KEY not in body
    answer = endpoint._object_in(httpx2.Response(200, content=body.encode()))
    assert KEY not in str(answer)
    assert answer["choices"][0]["text"].startswith("it is ")
