"""A report in which every text field was written by someone who means harm."""

import functools
from typing import Any

from pasture.report.content import ReportContent
from pasture.report.page import render
from tests.report.loop_numbers import content

ATTACKS = {
    "script": "<script>alert('owned')</script><img src=x onerror=alert(1)><svg onload=alert(2)>",
    "request": "<img src='http://192.0.2.1/a.png'><link rel=stylesheet href='//192.0.2.1/b.css'>"
    "<style>@import url(http://192.0.2.1/c.css);</style><iframe src='http://192.0.2.1/'></iframe>"
    "<meta http-equiv=refresh content='0;url=http://192.0.2.1/'>",
    "attribute": '" onmouseover="alert(3)" style="background:url(http://192.0.2.1/d.png)" x=\'',
    "breakout": "</style></title></pre></svg>]]><!-- <script>alert(4)</script>",
    "template": "{{ 7 * 7 }}{% raw %}${7*7}<% 49 %>",
    "direction": "\u202eevil\u2066\u2069\u200f",
    "terminal": "\x1b[2J\x1b]0;owned\x07\x00\x9b31m",
    "formula": "=cmd|' /C calc'!A0",
    "megabyte": "x" * 1_000_000,
}
_FIXED = {"kind", "format", "outcome", "finish_reason", "id", "instruction_id"}


def attacked(text: str) -> ReportContent:
    """The loop's report with `text` in front of every text that others may choose."""

    def walk(value: Any, key: str, parent: dict[str, Any]) -> Any:
        if isinstance(value, dict):
            return {inner: walk(part, inner, value) for inner, part in value.items()}
        if isinstance(value, list | tuple):
            return [walk(part, key, parent) for part in value]
        if not isinstance(value, str) or key in _FIXED or (key == "name" and "panels" in parent):
            return value
        return text + value

    return ReportContent.model_validate(walk(content().model_dump(mode="json"), "", {}))


@functools.cache
def attacked_page(attack: str) -> str:
    """The page of the report under one of the `ATTACKS`."""
    return render(attacked(ATTACKS[attack]))
