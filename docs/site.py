"""Which files the site of `make site` has: the pages of its navigation, and what they link to, each at its place in the repository.

MkDocs calls `on_files`; links between pages then hold in the site as they do in a clone and on GitHub.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\]\(([^)\s#]+)[^)\s]*\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's own files, the pages, and the files that a page links to."""
    from mkdocs.structure.files import File

    pages = list(_pages(config.nav))
    linked = {path for page in pages for path in _linked(page)}
    for each in [each for each in files if each.src_dir == config.docs_dir]:
        files.remove(each)
    for path in dict.fromkeys([*pages, *sorted(linked)]):
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def _pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for each in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _pages(each)


def _linked(page: str) -> Iterator[str]:
    """Files of the repository that a page links to."""
    for link in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        file = (ROOT / page).parent.joinpath(link).resolve()
        if "://" not in link and file.is_file() and file.is_relative_to(ROOT):
            yield file.relative_to(ROOT).as_posix()
