"""The report in a real browser: silent console, nothing fetched, every image drawn, nothing wider than it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lth_sparse import report
from lth_sparse.report import plots
from lth_sparse.storage.record import Record
from tests.report.test_report import sample_info, sample_record

pytestmark = pytest.mark.browser

DESKTOP, PHONE = 1280, 390
SMALLEST_TEXT = 15

# Chromium makes no window narrower than 500 pixels, so the page is opened in a frame of the wanted width. A
# frame with `srcdoc` has the origin of the page around it, whose script may therefore look into it; the page
# under test is left as it is. The wait after "load" is for images that only a style asks for: virtual time.
FRAME = """<!DOCTYPE html><html><head><link rel="icon" href="data:,"></head><body style="margin:0"><script>
const frame = document.createElement("iframe");
frame.style.cssText = "border:0;width:%(width)dpx;height:900px";
frame.srcdoc = %(page)s;
frame.onload = () => setTimeout(() => {
  const view = frame.contentWindow, page = frame.contentDocument, root = page.documentElement;
  const texts = [...page.body.querySelectorAll("*")].filter(element =>
    [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  const found = document.createElement("pre");
  found.id = "found";
  found.textContent = JSON.stringify({
    title: page.title,
    width: view.innerWidth,
    overflow: root.scrollWidth - root.clientWidth,
    resources: view.performance.getEntriesByType("resource").map(entry => entry.name),
    images: page.images.length,
    broken: [...page.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src),
    smallest: Math.min(...texts.map(element => parseFloat(view.getComputedStyle(element).fontSize))),
  });
  document.body.append(found);
}, 1000);
document.body.append(frame);
</script></body></html>"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without writing about it."""

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `folder` on this machine: Chromium keeps no trace of what comes from file://."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass(frozen=True)
class Seen:
    """What Chromium made of a page at one width."""

    console: list[str]
    title: str
    width: int
    overflow: int
    resources: list[str]
    images: int
    broken: list[str]
    smallest: float

    def faults(self) -> list[str]:
        """Everything that a reader of the report should never meet."""
        return [
            *(f"console: {line}" for line in self.console),
            *(f"asks for {name}" for name in self.resources),
            *(f"image not drawn: {name[:80]}" for name in self.broken),
            *([f"{self.overflow} pixels wider than the screen"] if self.overflow > 0 else []),
        ]


@pytest.fixture(scope="module")
def chromium() -> str:
    """The path of a Chromium, or a skipped test that says what to install."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no browser: install Debian's package `chromium` (apt-get install chromium)")


def look(chromium: str, page: str, width: int, folder: Path) -> Seen:
    """Opens `page` `width` pixels wide, with a new profile and no network but this machine."""
    # "<" would end the script early where the page says "</script>".
    frame = FRAME % {"width": width, "page": json.dumps(page).replace("<", "\\u003c")}
    (folder / "around.html").write_text(frame, "utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync --enable-logging=stderr "
        "--v=0 --virtual-time-budget=5000 --window-size=1400,1000"
    )
    with served(folder) as address:
        ran = subprocess.run(
            [
                chromium,
                *flags.split(),
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={folder / 'profile'}",
                "--dump-dom",
                f"{address}/around.html",
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
    found = re.search(r'<pre id="found">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert found, f"Chromium (exit status {ran.returncode}) showed no page:\n{ran.stderr[-2000:]}"
    # Chromium writes every message alike, whatever its level; a page without a script has none of any level.
    console = [line.partition("CONSOLE")[2] for line in ran.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(console=console, **json.loads(unescape(found[1])))


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_a_finished_report_is_drawn_whole_and_alone(chromium: str, tmp_path: Path, width: int) -> None:
    report.write(tmp_path, sample_info(), sample_record())
    seen = look(chromium, (tmp_path / "report.html").read_text("utf-8"), width, tmp_path)
    assert seen.faults() == []
    assert seen.width == width
    assert seen.images == 6
    assert seen.smallest >= SMALLEST_TEXT
    assert seen.title == "Lottery tickets: small on digits"


def test_long_names_do_not_widen_the_page_on_a_phone(chromium: str, tmp_path: Path) -> None:
    info = sample_info(name="d" * 120, classes=["c" * 90] * 10, notice="n" * 200)
    info["command"] = "python -m lth_sparse.run --out " + "o" * 300
    info["config"]["a" * 80] = "v" * 200
    record = sample_record()
    record.confusion[5][0][1] = 9
    record.proofs[0] = type(record.proofs[0])(1, "ticket", "s" * 200, "e" * 200)
    report.write(tmp_path, info, record)
    assert look(chromium, (tmp_path / "report.html").read_text("utf-8"), PHONE, tmp_path).faults() == []


def test_an_empty_report_is_clean_on_a_phone(chromium: str, tmp_path: Path) -> None:
    report.write(tmp_path, {}, Record())
    seen = look(chromium, (tmp_path / "report.html").read_text("utf-8"), PHONE, tmp_path)
    assert seen.faults() == []
    assert seen.smallest >= SMALLEST_TEXT


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        pytest.param('<img src="missing.png" alt="">', "image not drawn: http://127", id="broken-file"),
        pytest.param('<img src="there.png" alt="">', "/there.png", id="beside"),
        pytest.param('<img src="data:image/png;base64,AAAA" alt="">', "image not drawn: data:", id="broken-data"),
        pytest.param('<script>console.error("lost")</script>', 'console: :1] "lost"', id="console-error"),
        pytest.param("<script>nowhere()</script>", "nowhere is not defined", id="exception"),
        pytest.param('<div style="width:900px">wide</div>', "510 pixels wider than the screen", id="wide"),
        pytest.param(
            '<link rel="stylesheet" href="https://example.invalid/a.css">',
            "asks for https://example.invalid/a.css",
            id="outside",
        ),
        pytest.param("<style>p{background:url(there.png)}</style>", "/there.png", id="beside-in-style"),
    ],
)
def test_a_fault_in_a_page_is_seen(chromium: str, tmp_path: Path, body: str, fault: str) -> None:
    (tmp_path / "there.png").write_bytes(plots.png(Figure((1, 1))))
    page = f'<!DOCTYPE html><html><head></head><body style="margin:0"><p>text</p>{body}</body></html>'
    faults = look(chromium, page, PHONE, tmp_path).faults()
    assert any(fault in seen for seen in faults), faults
