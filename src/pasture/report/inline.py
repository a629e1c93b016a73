"""Turns a figure's SVG into a part of the page: no styles of its own, the page's fonts and colors, a name for readers.

The page forbids inline styles, so every style becomes a presentation attribute; colors become the page's variables.
"""

import re
from xml.etree import ElementTree as ET

from markupsafe import Markup

from pasture.core.hostile import on_one_line, shortened
from pasture.core.palette import LIGHT

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_ROLES = {color.lower(): f"var(--{role})" for role, color in LIGHT.items()}
_FONT_SIZE = re.compile(r"([\d.]+)px")
_URL = re.compile(r"url\(#([^)]+)\)")


def inline_svg(document: str, name: str, alternative: str) -> Markup:
    """`document`, an SVG file by matplotlib, as an `<svg>` element for the page.

    `name` makes its identifiers unique on the page; `alternative` is what a screen reader says in its place.
    """
    root = ET.fromstring(document)  # noqa: S314  # matplotlib wrote it a moment ago, labels escaped
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = _referenced(root)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        _restyle(element)
        _rename(element, name, used)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("stroke-linejoin", "round")
    root.set("aria-label", on_one_line(shortened(alternative, 600)))
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704  # ElementTree escapes text


def _referenced(root: ET.Element) -> set[str]:
    values = [value for element in root.iter() for value in element.attrib.values()]
    links = {value[1:] for value in values if value.startswith("#")}
    return links | {match for value in values for match in _URL.findall(value)}


def _restyle(element: ET.Element) -> None:
    for declaration in element.attrib.pop("style", "").split(";"):
        prop, _, value = declaration.partition(":")
        prop, value = prop.strip(), value.strip()
        if prop == "font":
            size = _FONT_SIZE.search(value)
            element.set("font-size", size[1] if size else "10")
        elif prop:
            element.set(prop, value)
    for attribute in ("fill", "stroke"):
        color = element.get(attribute, "").lower()
        if color in _ROLES:
            element.set(attribute, _ROLES[color])


def _rename(element: ET.Element, name: str, used: set[str]) -> None:
    identity = element.attrib.pop("id", None)
    if identity in used:
        element.set("id", f"{name}-{identity}")
    link = element.attrib.pop(f"{{{_XLINK}}}href", None)
    if link is not None:
        element.set("href", f"#{name}-{link[1:]}")
    clip = element.get("clip-path")
    if clip is not None:
        element.set("clip-path", _URL.sub(rf"url(#{name}-\1)", clip))
