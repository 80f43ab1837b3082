"""The site of `make site`: built without a warning, it asks for nothing elsewhere, and its search finds a rule."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def page(browser, address):
    context = browser.new_context()
    asked: list[str] = []
    made = context.new_page()
    made.set_default_timeout(120_000)
    context.on("request", lambda sent: asked.append(sent.url))
    made.goto(address + "/index.html", wait_until="networkidle")
    yield made
    context.close()
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def test_every_page_is_there_and_asks_for_nothing_elsewhere(page, site, address):
    pages = sorted(file.relative_to(site).as_posix() for file in site.rglob("*.html"))
    assert {"index.html", "docs/declaring.html", "docs/rules.html", "docs/survey.html", "findings/index.html"} <= {
        *pages
    }
    for each in pages:
        answer = page.goto(f"{address}/{each}", wait_until="load")
        assert answer.ok


def test_the_pictures_of_the_readme_are_shown(page):
    widths = page.locator("article img").evaluate_all("all => all.map(each => each.naturalWidth)")
    assert widths
    assert min(widths) > 0


def test_the_search_finds_a_rule(page):
    page.wait_for_load_state("networkidle")  # what is typed before the index is there may not be asked
    page.locator("input.md-search__input").press_sequentially("C01")  # it hears keys, and not that its text was set
    page.locator(".md-search-result__item a").first.wait_for()
    assert "docs/rules.html" in " ".join(
        page.locator(".md-search-result__item a").evaluate_all("all => all.map(each => each.href)")
    )
