"""`python -m clvp_train.demo` in a real browser: sampling, ranking, playback, blind comparison and errors."""

import csv
import io
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from playwright.sync_api import Page, sync_playwright

from clvp_train import Reranker
from clvp_train.metrics import percentile, read_score_table
from clvp_train.tortoise import Candidate, FrozenTortoise
from clvp_train.tortoise.audio import load_audio
from clvp_train.tortoise.vocoder import synthesize
from tests.e2e.commands import DEMO, ROOT, environment, execute, run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)")
COUNT, TEXT, SEED = 6, "The light was divided from the darkness.", 3
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# records every address that the process resolves or connects to
SPY = """
import sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments
        with open({file!r}, "a") as file:
            print(address[0] if isinstance(address, tuple) else "a file", file=file)
sys.addaudithook(note)
"""


@dataclass(frozen=True)
class Served:
    cwd: Path
    model: Path
    process: subprocess.Popen
    address: str


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def served(trained, tmp_path_factory):
    cwd, spy = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("spy")
    (spy / "sitecustomize.py").write_text(SPY.format(file=str(spy / "addresses")))
    model, port = trained.output / "model", free_port()
    settings = [f"checkpoint={model}", f"port={port}", f"num_candidates={COUNT}", "tortoise.dtype=float32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clvp_train.demo", *settings],
        cwd=cwd,
        env=environment(cwd, PYTHONPATH=f"{spy}:{ROOT}", GRADIO_TEMP_DIR=str(spy / "sounds")),
        stdout=subprocess.PIPE,
        stderr=(cwd / ".stderr").open("w"),
        text=True,
        # a shell starts background jobs with SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        lines = iter(process.stdout.readline, "")
        address = next((found[1] for line in lines if (found := re.match(r"demo: (http://\S+) ", line))), None)
        assert address == f"http://127.0.0.1:{port}/", (cwd / ".stderr").read_text()
        yield Served(cwd, model, process, address)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, (cwd / ".stderr").read_text()
        assert process.stdout.read().endswith("demo: stopped\n")
        assert "Traceback" not in (cwd / ".stderr").read_text()
        assert {path.name for path in cwd.iterdir()} - {".stderr", ".cache", ".config"} == {"outputs"}
        assert set((spy / "addresses").read_text().split("\n")) <= {*LOOPBACK, "a file", ""}
    finally:
        process.kill()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(served, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, requests, errors = context.new_page(), [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(served.address)
    yield page
    assert [url for url in requests if not url.startswith((served.address, "data:", "blob:"))] == []
    assert errors == []
    context.close()


def draw(page: Page, text: str, seed: int = SEED, voice: str | None = None) -> list[list[str]]:
    """Draws candidates and returns the rows of the table after it has changed."""
    before = rows(page)
    page.fill("#sentence textarea", text)
    page.get_by_label("Seed").fill(str(seed))
    if voice:
        page.get_by_label("Voice").click()
        page.get_by_role("option", name=voice).click()
    page.click("#draw")
    page.wait_for_function(
        "before => JSON.stringify((" + ROWS + ")()) != JSON.stringify(before)", arg=before, timeout=60_000
    )
    return rows(page)


ROWS = "() => [...document.querySelectorAll('#results .virtual-row')].map(row => [...row.querySelectorAll('[role=gridcell]')].map(cell => cell.innerText.trim()))"


def rows(page: Page) -> list[list[str]]:
    return page.evaluate(ROWS)


@pytest.fixture(scope="module")
def expected(served):
    """What the page must show: candidates in order of their scores, with percentiles."""
    tortoise = FrozenTortoise.from_pretrained(ROOT / "data/nano/tortoise")
    latent = tortoise.conditioning_latent(
        [load_audio(clip) for clip in sorted((ROOT / "data/nano/voices/slt").iterdir())]
    )
    [candidates] = tortoise.candidates([tortoise.tokenize(TEXT)], latent, COUNT, SEED)
    [ranking] = Reranker.from_pretrained(served.model).rank([TEXT], [candidates])
    table = read_score_table(served.model)
    scores = ranking.scores
    return tortoise, [(candidates[i], scores[i], percentile(table, scores[i])) for i in ranking.order]


def cells(rank: int, candidate: Candidate, score: float, percentile_: float) -> list[str]:
    steps = len(candidate.codes) + candidate.finished
    log_probability, seconds = candidate.log_probability / steps, len(candidate.codes) * 1024 / 22_050
    finished = "yes" if candidate.finished else "no"
    return [str(rank), f"{score:.4f}", f"{percentile_:.1f}", f"{log_probability:.2f}", f"{seconds:.1f}", finished]


def play(page: Page, name: str, start: bool) -> tuple[str, float]:
    """The source and duration of a player that plays."""
    audio = page.locator(f"#{name} audio")
    audio.wait_for()
    page.wait_for_function("name => document.querySelector(`#${name} audio`).duration > 0", arg=name)
    if start:
        audio.evaluate("audio => audio.play()")
    page.wait_for_function("name => document.querySelector(`#${name} audio`).currentTime > 0.1", arg=name)
    return audio.get_attribute("src"), audio.evaluate("audio => audio.duration")


@needs_chromium
def test_candidates_are_ranked_as_by_reranker_and_can_be_played(page, expected):
    tortoise, ranked = expected
    shown = draw(page, TEXT, voice="slt")
    assert shown == [cells(rank, *row) for rank, row in enumerate(ranked, start=1)]
    scores = [float(row[1]) for row in shown]
    assert scores == sorted(scores, reverse=True)
    page.locator("#results .virtual-row").nth(2).locator("[role=gridcell]").nth(1).click()
    for name, label, index, start in (
        ("best", "Best: rank 1", 0, True),
        ("worst", f"Worst: rank {COUNT}", -1, True),
        ("selected", "Selected: rank 3", 2, False),
    ):
        source, duration = play(page, name, start)
        assert label in page.locator(f"#{name}").inner_text()
        assert_plays(page, source, duration, tortoise, ranked[index][0])


def assert_plays(page: Page, source: str, duration: float, tortoise: FrozenTortoise, candidate: Candidate) -> None:
    samples, rate = soundfile.read(io.BytesIO(page.request.get(source).body()))
    [expected_] = synthesize(tortoise, [candidate.codes])
    assert rate == 22_050 and abs(duration - len(expected_) / rate) < 0.05
    np.testing.assert_allclose(samples, (expected_ / expected_.abs().max() * 0.9).numpy(), atol=1e-3)


@needs_chromium
@pytest.mark.parametrize("answer", ["A is better", "No difference"])
def test_pick_and_a_random_candidate_are_compared_blind(page, served, expected, answer):
    tortoise, ranked = expected
    page.fill("#sentence textarea", TEXT)
    page.get_by_label("Seed").fill(str(SEED))
    page.get_by_label("Voice").click()
    page.get_by_role("option", name="slt").click()
    page.get_by_label("Listening test").check()
    page.click("#draw")
    players = [play(page, name, start=True) for name in "ab"]
    assert "rank" not in page.locator("#comparison").inner_text() and page.locator("#results").is_hidden()
    page.get_by_role("button", name=answer).click()
    page.locator("#results").wait_for()
    verdict = page.locator("#message [role=status]").inner_text()
    ranks = [1 if words == "the pick" else int(words.split()[1]) for words in re.findall("was ([^,.]+)", verdict)]
    assert 1 in ranks and len(set(ranks)) == 2 and page.locator("#comparison").is_hidden()
    for (source, duration), rank in zip(players, ranks):
        assert_plays(page, source, duration, tortoise, ranked[rank - 1][0])
    preferred = "neither" if answer == "No difference" else "pick" if ranks[0] == 1 else "other"
    assert f"Pick preferred in {int(preferred == 'pick')} of 1 comparisons" in page.locator("#tally").inner_text()
    with next(served.cwd.glob("outputs/demo/*/listening_test.csv")).open() as file:
        row = list(csv.DictReader(file))[-1]
    assert (row["text"], row["rank_a"], row["preferred"]) == (TEXT, str(ranks[0]), preferred)
    assert page.get_by_label("Seed").input_value() == str(SEED + 1)
    page.get_by_label("Seed").fill(str(SEED))
    page.click("#draw")  # its ranking has been shown
    page.get_by_text("you have seen the ranking").wait_for()


@needs_chromium
def test_page_says_what_the_model_was_trained_on(page):
    sentence = page.get_by_text("Training data of this CLVP:")
    sentence.wait_for()
    assert "CLVP: corpus TextLines sentences.txt, codes ARCodes." in sentence.inner_text()


@needs_chromium
def test_selected_row_of_a_sorted_table_is_played(page):
    shown = draw(page, TEXT)
    header = page.locator("#table thead th").nth(3)
    header.click()
    header.locator(".cell-menu-button").click()
    page.get_by_text("Sort ascending").first.click()
    least = min(shown, key=lambda row: float(row[3]))
    page.locator("#results .virtual-row").nth(0).locator("[role=gridcell]").nth(1).click()
    play(page, "selected", start=False)
    assert rows(page)[0] == least and f"Selected: rank {least[0]}" in page.locator("#selected").inner_text()


@needs_chromium
def test_seed_determines_candidates(page):
    first = draw(page, TEXT, seed=0)
    second = draw(page, TEXT, seed=1)
    assert first != second and draw(page, TEXT, seed=0) == first


@needs_chromium
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  ", "text is empty"),
        ("She said Привет, twice.", "no token for П р и в е т"),
        ("Mail me @ home <now>", "no token for @ < >"),
        ("much too long a sentence " * 40, "plit it"),
    ],
)
def test_error_is_shown_on_the_page(page, text, words):
    draw(page, TEXT)
    page.fill("#sentence textarea", text)
    page.click("#draw")
    alert = page.locator("#message [role=alert]")
    alert.wait_for()
    assert words in alert.inner_text() and "Traceback" not in page.content()
    page.locator("#results").wait_for(state="hidden")
    assert len(draw(page, "Prices like $5, a café, “quotes” and 1984 can be said.")) == COUNT
    assert alert.count() == 0


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_its_window(page, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.reload()
    draw(page, TEXT)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    table = page.locator("#table").bounding_box()
    for cell in page.locator("#results .virtual-row >> nth=0").locator("[role=gridcell]").all():
        box = cell.bounding_box()
        assert table["x"] <= box["x"] and box["x"] + box["width"] <= table["x"] + table["width"] + 1
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).every(part => part < 60)")
    assert dark == (scheme == "dark")


def test_bad_settings(trained, tmp_path):
    def assert_refused(settings: list[str], *words: str) -> None:
        done = run(DEMO, settings, tmp_path)
        assert done.status == 2 and "Traceback" not in done.stderr, done.stderr
        (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert all(word in error for word in words), error

    model = f"checkpoint={trained.output / 'model'}"
    assert_refused([], "checkpoint")
    assert_refused(["checkpoint=nowhere"], "nowhere")
    assert_refused([model, "voices=nowhere"], "voices=nowhere")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert_refused([model, f"port={taken.getsockname()[1]}"], "port=", "another port")


def test_without_gradio(trained, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['gradio'] = None\n")
    command = ["-m", "clvp_train.demo", f"checkpoint={trained.output / 'model'}"]
    done = execute(command, tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.status == 2 and 'pip install "clvp-train[demo]"' in done.stderr.splitlines()[-1]
