"""The frame of the shop's simple pages."""

import html
from collections.abc import Iterable, Sequence

_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK KR", sans-serif; color: #1d1c1d }
body { max-width: 1000px; margin: 32px auto; padding: 0 20px }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #e3e3e3; padding: 6px 10px; text-align: left; vertical-align: top }
td, pre, p, li { overflow-wrap: break-word }
td > p { margin: 0 }
th { color: #616061; font-weight: 600; font-size: 13px }
section { border: 1px solid #e3e3e3; border-radius: 8px; padding: 8px 20px 16px; margin: 20px 0 }
pre { background: #f7f7f8; padding: 8px; white-space: pre-wrap }
blockquote { border-left: 3px solid #ddd; margin: 8px 0; padding-left: 14px }
.panel { background: #eef4ff; border-radius: 4px; padding: 4px 12px; margin: 8px 0 }
.status { background: #eceff3; border-radius: 3px; padding: 1px 7px; font-size: 12px; font-weight: 700 }
"""


def page(title: str, body: str) -> str:
    """A whole page; ``body`` is HTML, escaped already."""
    name = html.escape(title)
    head = f'<meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body><h1>{name}</h1>{body}</body></html>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells that are HTML, escaped already."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    below = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{below}</table>" if below else "<p>None.</p>"
