"""Texts that try to do something, and how to see that they did nothing."""

import re

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg/onload=alert(1)>',
    "[click](javascript:alert(1)) ![x](http://192.0.2.1/t.png) <http://192.0.2.1/>",
    "```html\n</code></pre><script>alert(1)</script>\n```",
    "{{ 733 * 911 }} {% include '/etc/passwd' %}",
    "</section></main></body></html><h1>gone</h1>",
    "<form action=http://192.0.2.1/><button name=said value=first>",
    "<style>*{display:none}</style><base href=http://192.0.2.1/><meta http-equiv=refresh content=0>",
    "a\u202egnihton\u202c b\x00\x1b[2J",
    "| a |\n|---|\n| <iframe src=//192.0.2.1> |",
]


def harmless(page: str) -> None:
    inner = page.partition("<body>")[2]
    assert not re.search(r"<(script|img|svg|iframe|style|base|meta|object|link)\b", inner, re.IGNORECASE)
    bare = re.sub(r'="[^"]*"', "=", re.sub(r">[^<]*<", "><", inner))  # no text, no values of attributes
    assert not re.search(r"\son\w+\s*=", bare)
    assert not [url for url in re.findall(r'(?:href|src|action)="([^"]*)"', page) if not re.match(r"[/#]", url)]
    assert page.count("</main>") == 1
    assert not {"\u202e", "\x1b", "\x00"} & set(page)
    assert "root:" not in page
    assert "667763" not in inner  # 733 * 911, were it reckoned
