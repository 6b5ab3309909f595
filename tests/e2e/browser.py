"""A small company with its pages on a real port, and a real Chromium that looks at them as a phone does."""

from __future__ import annotations

import shutil
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from service.app import create_app
from service.clock import SetClock
from service.store.database import Database
from tests.spine.company import Company, company

TOKEN = "an-admin-token-for-tests"
BY_TAG = "mai@example.org"
"""Known by a tag alone: gets fewer links than the project's people."""
WIDTH, HEIGHT = 390, 844
THUMB = 44
"""Pixels: what is smaller is hard to press."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but the service is ever reached
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Closed before anything else runs an event loop in this thread."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert found, "there is no Chromium; .ci/system-packages installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Phone:
    """A browser of its own that knows nobody, 390 pixels wide."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """What the browser said against a page: refused by its policy, not found, broken scripts."""

    @property
    def sideways(self) -> int:
        """By how many pixels the page is wider than the screen, as the browser laid it out: no script is asked."""
        self.page.wait_for_load_state("load")  # with its style sheet
        metrics = self.page.context.new_cdp_session(self.page).send("Page.getLayoutMetrics")
        return int(metrics["cssContentSize"]["width"]) - WIDTH

    def text(self) -> str:
        return " ".join(self.page.locator("main").inner_text().split())

    def button(self, name: str) -> Locator:
        self.page.wait_for_load_state("load")
        found = self.page.get_by_role("button", name=name, exact=True)
        box = found.bounding_box()
        assert box is not None
        assert box["height"] >= THUMB, f"{name}: {box}"
        assert box["x"] >= 0, f"{name}: {box}"
        assert box["x"] + box["width"] <= WIDTH, f"{name}: {box}"
        return found

    def keep(self, name: str, shots: Path) -> None:
        """A picture, for people."""
        self.page.wait_for_load_state("load")
        self.page.screenshot(path=str(shots / f"{name}.png"), full_page=True)


def phone(browser: Browser, *, scripts: bool = False, dark: bool = False) -> Phone:
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT},
        device_scale_factor=2,
        is_mobile=True,
        has_touch=True,
        java_script_enabled=scripts,
        color_scheme="dark" if dark else "light",
        locale="en-GB",
    )
    found = Phone(page=context.new_page())
    found.page.set_default_timeout(20_000)
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on(
        "console",
        lambda line: found.complaints.append(line.text) if line.type in ("error", "warning") else None,
    )
    return found


@dataclass
class Served:
    """The company, and where its pages are."""

    company: Company
    url: str

    def log_in(self, phone: Phone, token: str = TOKEN) -> None:
        phone.page.goto(f"{self.url}/login")
        phone.page.get_by_label("Your token").fill(token)
        phone.button("Log in").click()
        phone.page.wait_for_url(f"{self.url}/")

    def open_mail(self, phone: Phone, subject: str, folder: Path) -> None:
        """The newest mail to its people whose subject has these words, as a mail program would show it."""
        sent = [words for to, words in self.company.postman.taken if to != f"mail:{BY_TAG}"]
        words = next(words for words in reversed(sent) if subject in words.subject)
        file = folder / "mail.html"
        html = words.html
        for image in words.images:
            html = html.replace(f"cid:{image.cid}", f"data:image/png;base64,{b64encode(image.png).decode()}")
        file.write_text(html)
        phone.page.goto(file.as_uri())


@contextmanager
def served(database: Database, clock: SetClock) -> Iterator[Served]:
    """On a port that the system chose. Cycles are run by whoever holds the company."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with company(database, clock, public_url=url, admin_token=TOKEN) as made:
            server = uvicorn.Server(uvicorn.Config(create_app(made.rt), log_config=None, lifespan="off", ws="none"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            try:
                yield Served(company=made, url=url)
            finally:
                server.should_exit = True
                thread.join()
