"""The page gives the program's answers, follows the pen, and lets nothing out."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from mnist_cli import inputs, network
from mnist_cli.data import loading
from mnist_cli.network import Params
from mnist_cli.output import page
from mnist_cli.storage import model_file
from mnist_cli.storage.model_file import Model
from tests.conftest import Run

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "headless=new no-sandbox disable-gpu no-first-run disable-sync "
    "disable-background-networking disable-component-update"
)
SEVEN, DASH = [(0.25, 0.2), (0.75, 0.2), (0.4, 0.8)], [(0.3, 0.5), (0.7, 0.5)]
FAILING = ["missing.npz", "damaged.npz", "m.npz -o nowhere/a.html", "m.npz --data-dir m.npz"]
Open = Callable[..., Chrome]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Start the system's own browser; nothing is left for selenium to download."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver; apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in f"{FLAGS} user-data-dir={tmp_path_factory.mktemp('profile')}".split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options, Service(DRIVER)) as browser:
        yield browser


def model(**fields: Any) -> Model:
    """Return a model with random weights: no pixel goes unnoticed."""
    rng = np.random.default_rng(0)
    W, b = rng.normal(0, 0.3, (784, 10)), rng.normal(0, 0.3, 10)
    return Model(Params(W.astype(np.float32), b.astype(np.float32)), **fields)


@pytest.fixture
def show(chromium: Chrome, tmp_path: Path, data_dir: Path) -> Iterator[Open]:
    """Open the page of a model; in the end, see that nothing was logged."""

    def call(name: str = "model.npz", **fields: Any) -> Chrome:
        page.write(tmp_path / "page.html", model(**fields), name, data_dir)
        chromium.get((tmp_path / "page.html").as_uri())
        return chromium

    resize(chromium, 1280)
    yield call
    assert [] == chromium.get_log("browser")  # type: ignore[no-untyped-call]


def resize(browser: Chrome, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def draw(browser: Chrome, spots: list[tuple[float, float]]) -> None:
    """Draw a stroke with the mouse; the spots are in widths of the canvas."""
    canvas, actions = browser.find_element(By.TAG_NAME, "canvas"), ActionChains(browser, 20)
    for number, spot in enumerate(spots):
        at = [round((share - 0.5) * canvas.size["width"]) for share in spot]
        actions.move_to_element_with_offset(canvas, *at)
        if number == 0:
            actions.click_and_hold()
    actions.release().perform()


def click(browser: Chrome, selector: str, number: int = 0) -> None:
    browser.find_elements(By.CSS_SELECTOR, selector)[number].click()


def texts(browser: Chrome, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.innerText)"
    return list(browser.execute_script(script, selector))


def bars(browser: Chrome) -> list[str]:
    return texts(browser, "#bars td:nth-of-type(even)")  # logits and probabilities


@pytest.mark.parametrize("source", ["synthetic", "mnist", "fashion-mnist"])
@pytest.mark.parametrize("normalize", ["none", "deskew"])
@pytest.mark.parametrize("features", ["pixels", "directions"])
def test_answers_are_those_of_the_program(
    show: Open, request: pytest.FixtureRequest, source: str, normalize: str, features: str
) -> None:
    """On a data set, and on noise, a blank, one pixel, a line along the edge, and all white."""
    odd = np.random.default_rng(0).integers(0, 256, (24, 28, 28)).astype(np.uint8)
    odd[:4], odd[1, 3, 27], odd[2, :, 0], odd[3] = 0, 255, 255, 255
    folder = Path() if source == "synthetic" else request.getfixturevalue("real_data")
    images = np.concatenate([loading.load(source, "test", folder).images[:1000], odd])
    browser = show(normalize=normalize, features=features)
    pixels = json.dumps(images.reshape(-1, 784).tolist())
    script = "return JSON.stringify(JSON.parse(arguments[0]).map(classify))"  # quicker as text
    answers = json.loads(browser.execute_script(script, pixels))
    seen = inputs.apply(images, normalize, features)
    expected = network.predict(model().params, seen)
    probs = np.array([answer["probs"] for answer in answers])
    assert seen.reshape(-1, 784).tolist() == [answer["input"] for answer in answers]
    assert expected.argmax(1).tolist() == probs.argmax(1).tolist()
    np.testing.assert_allclose(probs, expected, rtol=0, atol=1e-5)
    for p, answer in zip(probs, answers, strict=True):
        np.testing.assert_allclose(answer["jacobian"], np.diag(p) - np.outer(p, p), atol=1e-12)


def test_bars_follow_the_mouse_and_undo(show: Open) -> None:
    browser = show(normalize="deskew", features="directions")
    stages = [bars(browser)]
    for stroke in (SEVEN, DASH):
        draw(browser, stroke)
        stages.append(bars(browser))
    assert 3 == len(set(map(tuple, stages)))
    click(browser, "#undo")
    assert stages[1] == bars(browser)
    click(browser, "#clear")
    assert stages[0] == bars(browser)
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    assert stages[1] == bars(browser)
    assert re.match(r"[\d.]+ ms \(median of the last \d+\)", texts(browser, "#speed")[0])


def test_keys_lower_and_move_and_lift_the_pen(show: Open) -> None:
    browser = show()
    canvas, blank = browser.find_element(By.TAG_NAME, "canvas"), bars(browser)
    canvas.send_keys(Keys.ARROW_UP, Keys.SPACE, *[Keys.ARROW_RIGHT] * 6, Keys.SPACE)
    drawn = bars(browser)
    canvas.send_keys(*[Keys.ARROW_DOWN] * 9)
    assert drawn == bars(browser) != blank
    canvas.send_keys(Keys.BACKSPACE)
    assert blank == bars(browser)


def test_finger_draws_and_does_not_scroll(show: Open) -> None:
    browser = show()
    resize(browser, 360)
    before = bars(browser)
    box = browser.execute_script("return paper.getBoundingClientRect().toJSON()")
    for kind, down in (("Start", 200), ("Move", 120), ("Move", 50), ("End", 0)):
        points = [{"x": box["x"] + 99, "y": box["y"] + down}] if down else []
        event = {"type": f"touch{kind}", "touchPoints": points}
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", event)
    assert before != bars(browser)
    assert 0 == browser.execute_script("return scrollY")


def test_drawing_is_centered_and_scaled_as_mnist_is(show: Open) -> None:
    browser = show()
    draw(browser, [(0.1, 0.1), (0.3, 0.1), (0.3, 0.6), (0.1, 0.4)])
    image = np.array(browser.execute_script("return Array.from(center())")).reshape(28, 28)
    assert np.ptp(np.nonzero(image > 100)[0]) + 1 in (20, 21)
    centroid = [image.sum(axis) @ np.arange(28) / image.sum() for axis in (0, 1)]
    np.testing.assert_allclose(centroid, 14, atol=0.1)


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_page_fits_its_width_and_keeps_the_drawing(show: Open, width: int) -> None:
    browser = show(dataset="fashion-mnist", features="directions")
    draw(browser, SEVEN)
    before = bars(browser)
    resize(browser, width)
    assert before == bars(browser)
    room = "return document.documentElement.clientWidth - document.documentElement.scrollWidth"
    assert 0 == browser.execute_script(room)
    assert 200 <= browser.find_element(By.TAG_NAME, "canvas").size["height"]
    draw(browser, DASH)
    assert before != bars(browser)


def test_tables_show_the_jacobian_and_the_gradient(show: Open) -> None:
    browser = show()
    click(browser, "#samples button", 8)
    browser.execute_script("temperature.value = 1; temperature.oninput()")
    logits = np.array(browser.execute_script("return classify(center()).logits"))
    probs = np.exp(logits / 10) / np.exp(logits / 10).sum()
    jacobian = np.array(texts(browser, "#jacobian td"), float).reshape(10, 11)
    by_hand = np.diag(probs) - np.outer(probs, probs)
    np.testing.assert_allclose(jacobian[:, :10], by_hand, rtol=0, atol=5.01e-4)
    assert not jacobian[:, 10].any()
    click(browser, "#labels button", 3)
    gradient, one_hot = np.array(texts(browser, "#gradient td"), float), np.eye(10)[3]
    upstream, product, shortcut, _ = gradient.reshape(4, 10)
    np.testing.assert_allclose(upstream, -one_hot / probs[3], rtol=0.05)
    np.testing.assert_allclose(product, probs - one_hot, rtol=0, atol=5.01e-4)
    assert shortcut.tolist() == product.tolist()


def test_saturation_leaves_a_gradient_only_with_the_floor(show: Open) -> None:
    browser = show()
    draw(browser, SEVEN)
    browser.execute_script("temperature.value = -2; temperature.oninput()")
    logits = [float(text) for text in bars(browser)[::2]]
    click(browser, "#labels button", int(np.argmin(logits)))
    gradient = np.array(texts(browser, "#gradient td"), float).reshape(4, 10)
    expected = np.eye(10)[np.argmax(logits)] - np.eye(10)[np.argmin(logits)]
    assert [expected.tolist()] * 2 == gradient[1:3].tolist()
    assert np.isnan(gradient[3]).all()


def test_names_stand_as_they_are_and_break_nothing(show: Open) -> None:
    name = "</script><script>document.title='broken'</script><!--\"'\\&ü"
    browser = show(name=name, dataset="fashion-mnist")
    [about] = texts(browser, "#about")
    assert (name, "clothes, not digits.") == (about[: len(name)], about[-20:])
    assert "9 Ankle boot" == texts(browser, "#bars th[scope=row]")[9]
    assert "Draw a piece of clothing" == browser.title


def test_page_can_request_nothing(show: Open) -> None:
    browser = show()
    assert [] == browser.execute_script("return performance.getEntriesByType('resource')")
    fetching = "fetch('data:,').then(() => arguments[0]('sent'), () => arguments[0]('refused'))"
    assert "refused" == browser.execute_async_script(fetching)
    [refusal, _] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert "Content Security Policy" in refusal["message"]


def test_page_names_sections_of_the_chapter() -> None:
    template = Path(page.__file__).with_suffix(".html").read_text()
    chapter = (Path(__file__).parents[1] / "docs" / "softmax-jacobian.md").read_text()
    for section in re.findall("<cite>(.*?)</cite>", template):
        assert f"## {section}\n" in chapter


def test_page_is_small_and_has_samples_where_the_data_is(run: Run, data_dir: Path) -> None:
    path = data_dir.with_name("page.html")
    model_file.save(data_dir.with_name("model.npz"), model())
    document = json.loads(run("page", "model.npz", "--json").stdout)
    made = path.read_bytes()
    assert {"model": "model.npz", "page": "page.html", "bytes": len(made)} == document
    assert (20, True) == (made.count(b'"pixels": "'), len(made) <= 300 * 1024)
    assert 0 == run("page", "model.npz", "--data-dir", "nowhere").returncode
    assert b'"samples": []' in path.read_bytes()


@pytest.mark.parametrize("arguments", FAILING)
def test_failure_is_one_line_and_leaves_the_page(run: Run, tmp_path: Path, arguments: str) -> None:
    model_file.save(tmp_path / "m.npz", model())
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "m.npz").read_bytes()[:-100])
    (tmp_path / "page.html").write_text("old")
    result = run("page", *arguments.split())
    assert (1, "", 1) == (result.returncode, result.stdout, len(result.stderr.splitlines()))
    assert arguments.split()[-1] in result.stderr
    assert "old" == (tmp_path / "page.html").read_text()
