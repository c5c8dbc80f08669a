"""A report as one HTML file that fetches nothing and runs no script; its figures stand in it, and beside it as PNG."""

from __future__ import annotations

import base64
import errno
import io
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from suspike._files import PathLike, sibling, write_new
from suspike._validate import fail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130

# The policy makes a browser refuse whatever should slip in from outside, and any script.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --ink: #1a1a1a; --soft: #5c5c5c; --line: #d8d8d8; --page: #fff; --band: #f5f6f8; --link: #0059a6; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e6e6; --soft: #a8a8a8; --line: #3c3f44; --page: #17191c; --band: #202327; --link: #7fbdf0; }}
}}
body {{ margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }}
h1 {{ font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .8rem; padding-bottom: .2rem; border-bottom: 1px solid var(--line); }}
nav a {{ color: var(--link); margin-right: 1rem; }}
dl {{ display: grid; grid-template-columns: fit-content(18rem) minmax(0, 1fr); gap: .3rem 1.5rem; margin: 0; }}
dt {{ color: var(--soft); }}
dd {{ margin: 0; font-variant-numeric: tabular-nums; }}
.wide {{ overflow-x: auto; margin: 0 0 1.5rem; }}
table {{ border-collapse: collapse; min-width: min(100%, 30rem); font-size: .92rem;
  font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; color: var(--soft); padding-bottom: .4rem; }}
p, caption, figcaption {{ white-space: pre-wrap; }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }}
thead th {{ background: var(--band); }}
.number {{ text-align: right; white-space: nowrap; }}
figure {{ margin: 0 0 2rem; }}
figure img {{ display: block; box-sizing: border-box; max-width: 100%; height: auto; margin: 0 auto; padding: .5rem;
  background: #fff; border: 1px solid var(--line); border-radius: 4px; }}
figcaption {{ color: var(--soft); margin-top: .5rem; font-size: .95rem; }}
@media print {{ nav {{ display: none; }} figure, tr {{ break-inside: avoid; }} }}
</style>
</head>
<body>
<header>
<h1>{title}</h1>
<nav>{links}</nav>
</header>
<main>
{sections}
</main>
</body>
</html>
"""


class Picture(NamedTuple):
    """A figure of a report.

    Attributes
    ----------
    name : str
        Its file is ``figures/<name>.png``: letters, digits, "_" and "-".
    figure : Figure
    caption : str
    alt : str
        What it shows, for those who do not see it.
    """

    name: str
    figure: Figure
    caption: str
    alt: str


class Table(NamedTuple):
    """A table of a report.

    Attributes
    ----------
    caption : str
    header : sequence of str
    rows : sequence of sequence
        A cell for each column: text as it is, floats with six digits; columns of numbers stand to the right.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]


def write_report(
    path: PathLike,
    *,
    title: str,
    summary: Mapping[str, object] | Sequence[tuple[str, object]],
    tables: Sequence[Table | tuple[str, Sequence[str], Sequence[Sequence[object]]]],
    figures: Sequence[Picture],
    notes: Sequence[str] = (),
) -> Path:
    """Write a report as one HTML file, and each figure as a PNG file in the folder ``figures`` beside it.

    Everything is drawn before the first file is touched, and files are put in place only once all are written: if that
    fails, an older report stays as it was. Nothing but the arguments goes in: the same give the same bytes.

    Parameters
    ----------
    path : path
        The HTML file; its folder is made where there is none. Reports in one folder share ``figures``.
    title : str
    summary : mapping, or sequence of (label, value)
        What matters most, first.
    tables : sequence of Table, or of (caption, header, rows)
    figures : sequence of Picture
    notes : sequence of str, optional
        Paragraphs at the end.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        A row has more or fewer cells than its header, or the name of a figure is no file name or stands twice.
    OSError
        A file cannot be written; it is named.
    """
    place = Path(path)
    pictures = _pictures(figures)
    items = list(summary.items()) if isinstance(summary, Mapping) else summary
    sections = {
        "Summary": "\n".join(f"<dt>{_text(label)}</dt><dd>{_text(value)}</dd>" for label, value in items),
        "Tables": "\n".join(_table(*table) for table in tables),
        "Figures": "\n".join(
            _figure(number, picture, pictures[picture.name]) for number, picture in enumerate(figures, 1)
        ),
        "Notes": "\n".join(f"<p>{_text(note)}</p>" for note in notes),
    }
    sections["Summary"] = f"<dl>\n{sections['Summary']}\n</dl>" if sections["Summary"] else ""
    parts = {name: body for name, body in sections.items() if body}
    page = _PAGE.format(
        title=_text(title),
        links="".join(f'<a href="#{name.lower()}">{name}</a>' for name in parts),
        sections="\n".join(
            f'<section id="{n.lower()}">\n<h2>{n}</h2>\n{body}\n</section>' for n, body in parts.items()
        ),
    )
    files = {place.parent / "figures" / f"{name}.png": png for name, png in pictures.items()}
    _write_all({**files, place: page.encode("utf-8", "replace")})
    return place


def _pictures(figures: Sequence[Picture]) -> dict[str, bytes]:
    """Draw every figure: PNG files by name."""
    names: set[str] = set()
    for picture in figures:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", picture.name):
            fail("name of a figure", "letters, digits, _ and -, a letter or digit first", repr(picture.name))
        if picture.name.lower() in names:  # some file systems take "a" and "A" for one
            fail("names of figures", "different without regard to case", f"{picture.name!r} twice")
        names.add(picture.name.lower())
    return {picture.name: _png(picture.figure) for picture in figures}


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    # Without "Software" nothing in the file tells which matplotlib wrote it.
    figure.savefig(file, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def _figure(number: int, picture: Picture, png: bytes) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    caption = f"<figcaption>Figure {number}. {_text(picture.caption)}</figcaption>"
    return f'<figure id="figure-{picture.name}">\n<img src="{source}" alt="{_text(picture.alt)}">\n{caption}\n</figure>'


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    for row in rows:
        if len(row) != len(header):
            fail(f"rows of table {caption!r}", f"of {len(header)} cells, as its header", f"one of {len(row)}")
    kinds = [' class="number"' if rows and all(map(_is_number, column)) else "" for column in zip(*rows, strict=True)]
    kinds = kinds or [""] * len(header)
    head = "".join(f'<th scope="col"{kind}>{_text(name)}</th>' for name, kind in zip(header, kinds, strict=True))
    body = "\n".join(
        f"<tr>{''.join(f'<td{kind}>{_text(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table>\n<caption>{_text(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _is_number(cell: object) -> bool:
    """Tell whether a cell is a number, begins like one, such as "1.20 nJ", or says that there is none."""
    if isinstance(cell, str):
        return bool(re.match(r"[-+−]?\.?\d", cell)) or cell in ("", "-", "–")
    return cell is None or isinstance(cell, int | float | np.number)


def _text(value: object) -> str:
    """Write a value as HTML text that is nothing but text, in an attribute too."""
    if value is None:
        return "-"
    return escape(f"{value:.6g}" if isinstance(value, float | np.floating) else str(value), quote=True)


def _write_all(files: Mapping[Path, bytes]) -> None:
    """Put all files in place, after all of them are on the disk under other names; in order, the last one last."""
    place, waiting, made = Path(), {}, []
    try:
        for place, data in files.items():
            for folder in reversed([f for f in (place.parent, *place.parent.parents) if not f.exists()]):
                folder.mkdir()
                made.append(folder)
            target = Path(os.path.realpath(place))  # what a link points to is replaced, not the link
            if target.exists() and not target.is_file():
                raise OSError(errno.EEXIST, "Not a regular file")
            temporary = sibling(target)
            waiting[temporary] = target
            write_new(temporary, data)
        for temporary, target in waiting.items():
            place = target
            os.replace(temporary, target)
        made.clear()
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; the report is not written", str(place)) from None
    finally:
        for temporary in waiting:
            with suppress(OSError):  # gone where it was moved
                temporary.unlink()
        for folder in reversed(made):
            with suppress(OSError):  # stays if something is in it
                folder.rmdir()
