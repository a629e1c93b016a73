"""The pages as HTML: templates that escape everything, one style sheet, one small script for keys."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pasture.annotate.page.owner import OwnersView
from pasture.annotate.page.prose import as_html, spelled_out
from pasture.annotate.page.views import Round, Shown
from pasture.core.palette import DARK, LIGHT
from pasture.core.statistics import Estimate

_HERE = Path(__file__).parent
_DASH = "\u2013"


def _style() -> bytes:
    light, dark = (" ".join(f"--{role}: {color};" for role, color in colors.items()) for colors in (LIGHT, DARK))
    themes = (
        f":root {{ color-scheme: light dark; {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
    )
    return (themes + (_HERE / "static" / "page.css").read_text(encoding="utf-8")).encode()


STATIC: Mapping[str, tuple[bytes, str]] = {
    "page.css": (_style(), "text/css"),
    "keys.js": ((_HERE / "static" / "keys.js").read_bytes(), "text/javascript"),
}
"""All files that are served, with their types; nothing is read from the disk for a request."""


class Pages:
    """Each page by its name."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=spelled_out,
        )
        self._templates.filters.update(percent=_percent, estimate=_estimate, duration=_duration, usd=_usd, ago=_ago)

    def front(self, here: Round, form: str) -> str:
        """Where an annotator stands, the guidelines, and the way on."""
        return self._render("front.html", here=here, form=form, guidelines=_guidelines(here))

    def pair(self, seen: Shown, form: str, *, plain: bool) -> str:
        """Two answers and the question."""
        markdown = seen.round.markdown and not plain
        texts = {
            name: as_html(text, markdown=markdown) if text.strip() else None
            for name, text in (
                ("instruction", seen.instruction),
                ("material", seen.material),
                ("first", seen.first),
                ("second", seen.second),
            )
        }
        return self._render(
            "pair.html",
            seen=seen,
            here=seen.round,
            form=form,
            plain=plain,
            guidelines=_guidelines(seen.round),
            **texts,
        )

    def switch(self, present: str, token: str, form: str) -> str:
        """Asks someone who opened another's link whether they mean it."""
        return self._render("switch.html", present=present, token=token, form=form)

    def message(self, text: str, on: str | None) -> str:
        """A sentence or two, and the way on, where there is one."""
        return self._render("message.html", text=text, on=on)

    def owner(self, seen: OwnersView, form: str) -> str:
        """All figures."""
        return self._render("owner.html", seen=seen, form=form)

    def link(self, name: str, link: str) -> str:
        """A new link, for the owner to hand on."""
        return self._render("link.html", name=name, link=link)

    def _render(self, template: str, /, **values: object) -> str:
        return self._templates.get_template(template).render(**values)


def _guidelines(here: Round) -> Markup | None:
    return as_html(here.guidelines, markdown=True) if here.guidelines.strip() else None


def _percent(value: float | None) -> str:
    return _DASH if value is None else f"{100 * value:.0f}%"


def _estimate(value: Estimate | None, kind: str = "share") -> str:
    """A figure with its 95% interval."""
    if value is None or value.value != value.value:  # NaN
        return _DASH
    low, high = value.interval
    if kind == "share":
        return f"{100 * value.value:.0f}% ({100 * low:.0f} to {100 * high:.0f})"
    return f"{value.value:.2f} ({low:.2f} to {high:.2f})"


def _duration(seconds: float | None) -> str:
    """In the largest unit that leaves two digits before it, or one: 45 s, 12 min, 3.5 hours."""
    if seconds is None:
        return _DASH
    if seconds < 1:
        return "under 1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} hours"


def _ago(seconds: float | None) -> str:
    """Since when nothing was heard."""
    if seconds is None:
        return _DASH
    if seconds < 60:
        return "just now"
    days = round(seconds / 86400)
    return f"{_duration(seconds)} ago" if days < 2 else f"{days} days ago"


def _usd(value: float | None) -> str:
    return _DASH if value is None else f"${value:,.2f}"
