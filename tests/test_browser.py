"""JupyterLab in a real browser: notebooks run from its menu, the widgets answer, a stop is clean.

The notebooks with widgets and the training are tried here; `test_notebooks.py` runs all of them.

Playwright drives the system's Chromium. FER_SCREENSHOTS names a folder for images of what was seen.
"""

import contextlib
import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from fer_utils import Config, fit, load_competition
from fer_utils.files import REPOSITORY

pytestmark = pytest.mark.once

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
         "--disable-background-networking", "--disable-sync"]  # fmt: skip
TOKEN = "only-for-this-test"
# In milliseconds: a page that needs them is broken, or the machine is very busy.
PATIENCE = 240_000
# All cells of a notebook in the page, also those out of sight; no questions and no news.
SETTINGS = {
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
# Seconds without a word from a kernel that is idle.
QUIET = 1.5
# What a cell behind the last one prints. JupyterLab's own signs tell too little: it sometimes leaves cells at
# [*] that have run, and lets the kernel idle between two cells.
THE_END = "every cell has run"
END = f".jp-OutputArea-output:has-text('{THE_END}')"
ERROR = ".jp-OutputArea-output:has-text('Traceback (most recent call last)')"
SMALL = {"image_size": 32, "model": "small", "width": 0.125, "views": "plain"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser's page, and JupyterLab with copies of the notebooks behind it; both end with the tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (Kaggle)")
    if CHROMIUM is None and os.environ.get("CI") and not os.environ.get("FER_NO_BROWSER"):
        pytest.fail("CI has no browser: install chromium, or set FER_NO_BROWSER")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with (
        jupyterlab(tmp_path_factory.mktemp("lab")) as (folder, address),
        playwright.sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.folder, page.address = folder, address
        yield page
        browser.close()


@contextlib.contextmanager
def jupyterlab(folder: Path):
    """JupyterLab on a port of its own, with nothing of this user's settings; its folder and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home, notebooks = folder / "home", folder / "notebooks"
    notebooks.mkdir()
    (home / "settings").mkdir(parents=True)
    (home / "settings" / "overrides.json").write_text(json.dumps(SETTINGS))
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {name: str(home / name) for name in places} | {"OMP_NUM_THREADS": "1"}
    options = [f"--ServerApp.root_dir={notebooks}", f"--IdentityProvider.token={TOKEN}", "--no-browser",
               f"--port={port}", "--allow-root", "--ServerApp.ip=127.0.0.1",
               f"--LabApp.app_settings_dir={home / 'settings'}"]  # fmt: skip
    with (folder / "server.log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=notebooks)
        try:
            wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", server, folder / "server.log")
            yield notebooks, f"http://127.0.0.1:{port}/lab"
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)


def open_notebook(page, name: str, **parameters) -> None:
    """A copy of a notebook with other parameters, as papermill would set them, opened in the browser.

    The kernels of those before are shut down: each keeps a gigabyte.
    """
    page.goto("about:blank")  # which would be told of its kernel's end
    for session in sessions(page):
        ask(page, f"sessions/{session['id']}", "DELETE").close()
    source = load_notebook_node(str(REPOSITORY / "notebooks" / f"{name}.ipynb"))
    notebook = parameterize_notebook(source, parameters)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
    notebook.cells.append(nbformat.v4.new_code_cell(f"print({THE_END!r})"))
    nbformat.write(notebook, page.folder / f"{name}.ipynb")
    page.notebook = f"{name}.ipynb"
    page.goto(f"{page.address}/tree/{name}.ipynb?reset&token={TOKEN}")
    page.locator(".jp-NotebookPanel:visible .jp-Notebook .jp-CodeCell").first.wait_for()
    idle(page)


def ask(page, path: str, method: str = "GET"):
    """The answer of Jupyter's server to a request."""
    address = f"{page.address.removesuffix('/lab')}/api/{path}?token={TOKEN}"
    return urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=60)


def sessions(page) -> list[dict]:
    """The notebooks that have a kernel."""
    with ask(page, "sessions") as answer:
        return json.load(answer)


def idle(page) -> None:
    """Wait until the kernel of the notebook that was opened last is there, and JupyterLab knows it."""
    deadline = time.monotonic() + PATIENCE / 1000
    while True:
        kernels = [session["kernel"] for session in sessions(page) if session["path"] == page.notebook]
        if kernels and kernels[0]["execution_state"] == "idle":
            last = datetime.datetime.fromisoformat(kernels[0]["last_activity"].replace("Z", "+00:00"))
            if (datetime.datetime.now(datetime.UTC) - last).total_seconds() > QUIET:
                break
        assert time.monotonic() < deadline, f"{page.notebook} has no kernel"
        page.wait_for_timeout(100)
    page.locator(".jp-NotebookPanel:visible .jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()


def menu(page, *items: str) -> None:
    page.locator(".lm-MenuBar-item", has_text=items[0]).first.click()
    page.locator(".lm-Menu-item", has_text=items[1]).first.click()


def run_all(page) -> None:
    """Restart Kernel and Run All Cells..., from the menu, confirmed."""
    menu(page, "Run", "Restart Kernel and Run All Cells")
    page.locator(".jp-Dialog .jp-mod-accept").click()


def finish(page, name: str) -> None:
    """Wait until every cell has run, and see that none complains."""
    page.locator(f"{END}, {ERROR}").first.wait_for()
    whole_picture(page, name)
    assert not page.locator(ERROR).all_inner_texts()
    said = page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').all_inner_texts()
    assert not [text for text in said if "Warning" in text or "Error" in text], said


def picture(page, name: str) -> None:
    if folder := os.environ.get("FER_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def whole_picture(page, name: str) -> None:
    """An image of the notebook from its title to its end: the window is made as tall as that."""
    if os.environ.get("FER_SCREENSHOTS"):
        usual, cells = page.viewport_size, page.locator(".jp-NotebookPanel:visible .jp-WindowedPanel-outer")
        page.set_viewport_size(usual | {"height": cells.evaluate("e => e.scrollHeight") + 150})
        page.locator(".jp-NotebookPanel:visible .jp-Cell").first.scroll_into_view_if_needed()
        picture(page, name)
        page.set_viewport_size(usual)


def changes(page, image, act) -> None:
    """Do `act` and see `image` change."""
    before = image.get_attribute("src")
    act()
    page.wait_for_function("([image, before]) => image.src !== before", arg=[image.element_handle(), before])


def test_notebooks_run_and_their_widgets_answer(page, tmp_path):
    open_notebook(page, "02_augmentation", data="demo", out=str(tmp_path / "augmentation"))
    run_all(page)
    finish(page, "02_augmentation")
    image = page.locator(".widget-image").first
    image.scroll_into_view_if_needed()
    handle = page.locator(".widget-slider .noUi-handle").nth(1)  # rotate
    changes(page, image, lambda: (handle.focus(), page.keyboard.press("PageUp")))
    picture(page, "02_sliders")

    runs = [str(tmp_path / name) for name in ("first", "second")]
    for seed, out in enumerate(runs):
        config = Config(**SMALL, data="demo", out=out, seed=seed, epochs=1)
        fit(config, load_competition(config.data, **config.data_options))
    open_notebook(page, "04b_error_details", out=runs[0], compare=runs[1], n_explained=60)
    run_all(page)
    finish(page, "04b_error_details")
    browsers = page.locator(".jp-OutputArea-output .widget-vbox", has=page.locator(".widget-image"))
    assert browsers.count() == 2
    for name, browser, column, value in (
        ("errors", browsers.first, "true", "sad"), ("comparison", browsers.last, "outcome", "both wrong"),
    ):  # fmt: skip
        image, words = browser.locator(".widget-image"), browser.locator(".widget-label", has_text="face")
        image.scroll_into_view_if_needed()
        choice = browser.locator(".widget-dropdown", has_text=column).locator("select")
        changes(page, image, lambda choice=choice, value=value: choice.select_option(value))
        changes(page, image, lambda choice=choice: choice.select_option("any"))
        changes(page, image, browser.locator("button", has_text="next").click)
        assert words.inner_text().startswith("faces 25 to")
        picture(page, f"04_{name}")


def test_stopped_training_goes_on_when_all_is_run_again(page, tmp_path):
    knobs = SMALL | {"data": "demo", "out": str(tmp_path / "run"), "epochs": 15, "checkpoint_seconds": 0.0}
    open_notebook(page, "03_training", **knobs)
    run_all(page)
    bar = page.locator(".jp-OutputArea-output .widget-hprogress")
    bar.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => /[1-9]\\d*\\/15\\s/.test(document.body.innerText)"
    )  # the bar, with time left
    picture(page, "03_bar")
    menu(page, "Kernel", "Interrupt Kernel")
    error = page.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
    error.wait_for()
    assert error.inner_text().strip() == "Interrupted"  # a word, no traceback, and nothing after it has run
    stopped = page.locator(
        '[data-mime-type="application/vnd.jupyter.stdout"]', has_text="the same command resumes"
    )
    assert "stopped after epoch" in stopped.inner_text()
    stopped.scroll_into_view_if_needed()
    picture(page, "03_stopped")
    run_all(page)
    page.locator(
        '[data-mime-type="application/vnd.jupyter.stdout"]', has_text="resuming after epoch"
    ).wait_for()
    finish(page, "03_again")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["training"]["resumed"] == 1
