"""A badge: a cell and its level, as an SVG file without a font of its own."""

from html import escape

COLOURS = {
    "Released": "#1c6b43",
    "Validated": "#1c6b43",
    "Preliminary": "#24479e",
    "Untested": "#7d5700",
    "Community": "#7d5700",
    "none": "#b3261e",
    "no evidence": "#5b606b",
}
HEIGHT, PADDING, CHARACTER = 20, 10, 6.6


def badge(what: str, level: str, remark: str | None = None) -> str:
    """The SVG text; a remark follows the level. The colour carries no information that the text does not."""
    status = f"{level}, {remark}" if remark else level
    left, right = (round(len(text) * CHARACTER + PADDING) for text in (what, status))
    whole = left + right
    label = escape(f"{what}: {status}", quote=True)

    def words(text: str, begin: int, width: int) -> str:
        middle = begin + width / 2
        return (
            f'<text x="{middle:g}" y="14" textLength="{width - PADDING}" lengthAdjust="spacingAndGlyphs">'
            f"{escape(text)}</text>"
        )

    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{HEIGHT}" role="img" aria-label="{label}">'
        f"<title>{label}</title>"
        f'<rect width="{left}" height="{HEIGHT}" fill="#3a3f4a"/>'
        f'<rect x="{left}" width="{right}" height="{HEIGHT}" fill="{COLOURS[level]}"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f"{words(what, 0, left)}{words(status, left, right)}</g></svg>\n"
    )
