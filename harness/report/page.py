"""HTML pages that stand alone: one file with its styles and scripts in it, which can load nothing and is opened from disk.

Every page is built on `base.html.jinja`, which has the head, the header with the switch of the colours, and the footer.
A page's Content-Security-Policy names its own scripts by their hash and forbids everything else, so that text from outside
could not run or fetch anything even if it became markup; it cannot, since every value is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from harness.results.words import plural, printable, seconds_text

_TEMPLATES = Path(__file__).parent / "templates"

# Marks that turn the direction of what follows, surrogates that UTF-8 cannot hold, and separators that break a script:
# shown by their number, so that a name cannot pretend to be another one.
_UNSEEN = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def page(
    template: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    **values: Any,
) -> str:
    """The text of an HTML page.

    Args:
        template: a file of the folder `templates` that extends `base.html.jinja`.
        styles: style sheets of that folder that come after `page.css`.
        scripts: scripts of that folder that come after `page.js`; they run when the page is there.
        values: what the template shows; every text is escaped unless it is `Markup`.

    Raises:
        jinja2.UndefinedError: the template shows something that `values` does not have.
    """
    codes = [_asset(name) for name in ("page.js", *scripts)]
    return (
        environment()
        .get_template(template)
        .render(
            style=Markup(stylesheet("page.css", *styles)),
            scripts=list(map(Markup, codes)),
            policy=policy(codes),
            **values,
        )
    )


def stylesheet(*names: str) -> str:
    """Style sheets of the folder `templates`, one after the other."""
    return "\n".join(_asset(name) for name in names)


def policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy that lets these scripts run, styles that stand in the page, and nothing else."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        f"base-uri 'none'; form-action 'none'"
    )


def shown(value: object) -> object:
    """Text as a person sees it: control characters are left out, marks that are not seen stand as their number."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _UNSEEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", printable(value))
    return value


def breakable(text: str) -> Markup:
    """A name or a path that may be broken behind its joints rather than in the middle of a word."""
    return Markup(re.sub(r"([_./:])(?=\w)", r"\1<wbr>", str(escape(shown(text)))))


def anchor(kind: str, *names: str) -> str:
    """An id to link to, the same for equal names: readable where they are plain, with a hash where they are not."""
    joined = "/".join(names)
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", joined)[:60]
    is_plain = plain == "-".join(names) and all(names)
    ending = "" if is_plain else f"-{hashlib.sha256(joined.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
    return f"{kind}-{plain}{ending}"


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The templates, with everything escaped that is not marked as markup, and an error on what is not given."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"plural": plural, "seconds": seconds_text, "anchor": anchor, "breakable": breakable}
    return made


@lru_cache(maxsize=16)
def _asset(name: str) -> str:
    """A style sheet or a script; a tag that would end its element must not stand in it."""
    text = (_TEMPLATES / name).read_text(encoding="utf-8").strip()
    if re.search(r"</(script|style)", text, re.IGNORECASE):
        raise ValueError(f"{name} holds the end of its own element; write it as '<' + '/script' in a script")
    return text
