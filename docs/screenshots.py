"""Make the pictures of a report that the documentation shows.

    python docs/screenshots.py                        a run of the example losses, then the pictures
    python docs/screenshots.py FOLDER/report.json     pictures of a report that is there already

Needs the extra `browser` and Chromium on the PATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.report import html
from harness.results.schema import loads

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

HERE = Path(__file__).parent
TARGETS = ("docs/example_losses.py", "losses.graph_distance:SPEC")
MOST_BYTES = 200_000


@click.command()
@click.argument("report", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=False)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=HERE / "images", show_default=True)
@click.option("--loss", default="weighted_distance", show_default=True, help="Loss whose error is shown.")
def main(report: Path | None, out: Path, loss: str) -> None:
    """Write choice.png, report-desktop.png, report-phone.png, report-dark.png, finding.png and scaling.png."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        raise click.ClickException("no Chromium on the PATH; `apt-get install chromium` brings it")
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        source = report or measured(Path(temporary))
        page = Path(temporary) / "page.html"
        page.write_text(
            html.render(loads(source.read_text(encoding="utf-8")), folder="reports/latest"), encoding="utf-8"
        )
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        photograph(browser, page.as_uri(), out, loss)
        browser.close()
    for file in sorted(out.glob("*.png")):
        size = file.stat().st_size
        click.echo(f"{file}: {size / 1000:.0f} KB")
        if size > MOST_BYTES:
            raise click.ClickException(f"{file} has {size:,} bytes, expected at most {MOST_BYTES:,}")


def measured(folder: Path) -> Path:
    """The report.json of a short run; that a loss has errors is what the pictures are about."""
    command = [sys.executable, "-m", "harness", "report", *TARGETS, "--out", str(folder), "--budget", "40"]
    done = subprocess.run(command, cwd=HERE.parent, check=False)
    if done.returncode not in (0, 1):
        raise click.ClickException(f"{' '.join(command)} ended with {done.returncode}; see above")
    return folder / "report.json"


def photograph(browser: Browser, address: str, out: Path, loss: str) -> None:
    """Take every picture."""
    for name, width, height, scheme in (
        ("report-desktop", 1280, 860, "light"),
        ("report-dark", 1280, 860, "dark"),
        ("report-phone", 390, 1100, "light"),
    ):
        opened(browser, address, width, height, scheme).screenshot(path=out / f"{name}.png")
    picture(opened(browser, address, 640, 900, "light").locator(f"#loss-{loss} .choice"), out / "choice.png")
    page = opened(browser, f"{address}#loss-{loss}", 1100, 900, "light")
    finding = page.locator(f"#loss-{loss} .finding[data-severity='error']").first
    finding.locator("details details").first.evaluate("each => each.open = true")
    picture(finding, out / "finding.png")
    page.set_viewport_size({"width": 1280, "height": 900})
    scaling = page.locator(f"#loss-{loss} .scaling")
    if scaling.count():
        picture(scaling, out / "scaling.png")


def opened(browser: Browser, address: str, width: int, height: int, scheme: str) -> Page:
    """The page in a window of this size."""
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page.goto(address)
    return page


def picture(part: Locator, file: Path) -> None:
    """One part of the page alone, without the header that floats above it."""
    part.page.add_style_tag(content=".top { position: static } pre { max-height: none }")
    part.screenshot(path=file)


if __name__ == "__main__":
    main()
