"""The colors of the report and of the labelling page, by the role they play; one accent, six series to tell apart.

Figures are drawn in the light colors. On the page each becomes the CSS variable of its role, so that figures follow
the reader's dark or light setting.
"""

LIGHT = {
    "paper": "#fdfdfb",
    "ink": "#1c2420",
    "soft": "#586660",
    "rule": "#d6dcd8",
    "wash": "#f1f4f1",
    "accent": "#0b6b4b",
    "series-1": "#0b6b4c",
    "series-2": "#b8480b",
    "series-3": "#2767ad",
    "series-4": "#9a3f76",
    "series-5": "#6f6100",
    "series-6": "#57606b",
    "warning": "#8a4a00",
}
"""Each a different value: a color names its role. Text colors keep a contrast of 4.5 on paper and wash."""

DARK = {
    "paper": "#141a17",
    "ink": "#e4eae6",
    "soft": "#a2b0a8",
    "rule": "#37423c",
    "wash": "#1d2521",
    "accent": "#63c9a0",
    "series-1": "#63c9a1",
    "series-2": "#f0935a",
    "series-3": "#7db4f0",
    "series-4": "#e58fc2",
    "series-5": "#d3c257",
    "series-6": "#b3bcc6",
    "warning": "#f0b267",
}

SERIES = tuple(name for name in LIGHT if name.startswith("series-"))
DASHES = ("solid", (0, (5, 2)), (0, (1.2, 1.6)), (0, (7, 2, 1.4, 2)), (0, (3, 1.5)), (0, (9, 3)))
"""Line patterns that go with the series colors, so that color is never the only difference."""
