"""The page in a real browser, beside the real daemon and a metadata service that is played: calm, blind, in an episode,
finished, failed; what is visible, what a keyboard reaches, how it reads in both themes and on a phone; and what becomes of
an open page when the daemon is restarted, the browser sleeps, or another version answers.

    drive.py WATCHDOG PICTURES          the binary, and where the pictures go
"""

import datetime
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PATIENCE = 40
WATCHDOG, PICTURES = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()

HOOK = """#!/bin/sh
# Works until it is let go, and ends as it is told; the upload says what no page should fall for.
if [ "$1" = checkpoint ]; then
    echo 'epoch 41: loss 0.231'
    for shard in 1 2 3; do echo "shard $shard of 8 is written"; done
else
printf 'part 1 of 1: \\033[31mred\\033[0m\\n'
printf '</pre><script>window.fell = 1</script><img src=x onerror="window.fell = 2">\\n'
printf 'bytes that are no text: \\377\\376, and a line turned round: \\342\\200\\256evil\\n'
head -c 1048576 /dev/zero | tr '\\0' 'x'; echo
echo 'part 1 is sent'
fi
# Without its directory the test is over.
while [ -d "$GATES" ] && [ ! -e "$GATES/$1" ]; do sleep 0.1; done
exit "$(cat "$GATES/$1")"
"""

CONFIG = """
[[source]]
kind = "aws"
poll-interval = "500ms"

[[source]]
kind = "shutdown"

[[step]]
name = "leave-load-balancer"
kind = "hook"
command = ["/bin/true"]
needs = "3s"

[[step]]
name = "checkpoint"
kind = "hook"
command = ["{hook}", "checkpoint"]
environment = {{ GATES = "{gates}" }}
needs = "45s"
timeout = "90s"
retries = 0

[[step]]
name = "upload"
kind = "hook"
command = ["{hook}", "upload"]
environment = {{ GATES = "{gates}" }}
after = ["checkpoint"]
needs = "30s"
optional = true
"""


def until(what, look):
    end, wrong = time.monotonic() + PATIENCE, None
    while time.monotonic() < end:
        try:
            if seen := look():
                return seen
            wrong = None
        except (OSError, WebDriverException) as error:  # Nobody listens yet, or the page is being loaded.
            wrong = error
        time.sleep(0.1)
    raise AssertionError(f"waited in vain for {what}") from wrong


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class World:
    """A directory, the daemon and its cloud; all end with it."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.cloud_port, self.port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.cloud = self.daemon = None
        self.episodes = 0
        hook = self.directory / "hook"
        hook.write_text(HOOK)
        hook.chmod(0o755)

    def play(self, *arguments):
        self.stop_cloud()
        self.cloud = self.begin("emulate", "aws", "--listen", f"127.0.0.1:{self.cloud_port}", *arguments)

    def stop_cloud(self):
        self.cloud = self.end(self.cloud)

    def watch(self, fresh):
        if fresh:
            self.episodes += 1
            self.gates().mkdir()
        config = self.directory / "watchdog.toml"
        config.write_text(CONFIG.format(hook=self.directory / "hook", gates=self.gates()))
        self.daemon = self.begin(
            "--config", config, "--listen", f"127.0.0.1:{self.port}", "--state-dir", self.directory / f"state-{self.episodes}",
            "--metadata-endpoint", f"http://127.0.0.1:{self.cloud_port}",
        )

    def gates(self):
        return self.directory / f"gates-{self.episodes}"

    def let(self, step, status):
        """Lets a hook end with this exit status."""
        new = self.gates() / "new"
        new.write_text(str(status))
        new.rename(self.gates() / step)

    def kill(self):
        self.daemon = self.end(self.daemon, signal.SIGKILL)

    def status(self):
        with urllib.request.urlopen(self.url + "status", timeout=5) as answer:
            return json.load(answer)

    def begin(self, *arguments):
        log = open(self.directory / "log", "ab")
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "RUNTIME_DIRECTORY": str(self.directory)}
        return subprocess.Popen([WATCHDOG, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def end(self, process, how=signal.SIGKILL):
        if process:
            process.send_signal(how)
            process.wait()

    def close(self):
        for step in ["checkpoint", "upload"]:
            self.let(step, 0)
        self.end(self.daemon)
        self.end(self.cloud)


def browser(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
        "--no-proxy-server", "--force-device-scale-factor=1", f"--user-data-dir={profile}", "--window-size=1000,1000",
        "--disable-dev-shm-usage", "--disable-default-apps",
    ]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


class Page:
    def __init__(self, driver, world):
        self.driver, self.world = driver, world
        self.requests, self.complaints = [], []

    def open(self):
        self.driver.get(self.world.url)

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def cdp(self, name, **arguments):
        return self.driver.execute_cdp_cmd(name, arguments)

    def visible(self):
        return self.driver.find_element(By.TAG_NAME, "body").text

    def waits_for(self, *texts):
        for text in texts:
            try:
                until(text, lambda: text in self.visible())
            except AssertionError:
                raise AssertionError(f"{text!r} is not on the page:\n{self.visible()}") from None

    def headline(self):
        return self.driver.find_element(By.TAG_NAME, "h1").text

    def is_headed(self, text):
        until(f"the headline {text!r}", lambda: self.js("return document.querySelector('h1').innerText") == text)

    def is_live(self):
        until("the page to be connected", lambda: self.js("return document.getElementById('link').textContent") == "live")

    def says(self, text):
        """Waits for what somebody who cannot see the page is told."""
        said = lambda: self.js("return document.getElementById('say').textContent")
        return until(f"{text!r} to be said", lambda: text in said() and said())

    def as_of(self):
        """The time of the state that is shown."""
        return self.js("return document.getElementById('state').textContent.match(/As of [\\d:]+/)[0]")

    def theme(self, name):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])
        # A colour takes its time to change, and on a busy machine more than it is told to.
        until(f"the page to be {name}", lambda: self.js(
            "return matchMedia(`(prefers-color-scheme: ${arguments[0]})`).matches && "
            "!document.getAnimations().some((it) => it instanceof CSSTransition && it.playState === 'running')", name))

    def size(self, width, height=1000):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        until(f"a window of {width} by {height}", lambda: self.js("return [innerWidth, innerHeight]") == [width, height])

    def look(self, name):
        """What has to hold of every state: nothing refused, nothing asked outside, readable, no sideways scrolling."""
        for theme in ["light", "dark"]:
            self.theme(theme)
            faint = self.js(CONTRAST)
            assert not faint, f"{name}, {theme}: too little contrast: {faint}"
        self.theme("light")
        self.size(320, 800)
        wide = self.js("return [document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == 320, f"{name}: scrolls sideways at 320 px: {wide}"
        self.picture(f"{name}-phone", 320)
        self.size(1000)
        wrong = self.js(STRUCTURE)
        assert not wrong, f"{name}: {wrong}"
        assert self.js("return window.fell === undefined"), "a text of a hook was run"
        self.picture(name)

    def picture(self, name, width=860):
        self.size(width)
        height = min(1500, self.js("return document.documentElement.scrollHeight"))
        self.size(width, height)
        self.driver.save_screenshot(str(PICTURES / f"{name}.png"))
        self.size(1000)

    def told(self):
        """What the browser complained of, and what it asked for, since the last time."""
        told = [it["message"] for it in self.driver.get_log("browser") if it["level"] in ("SEVERE", "WARNING")]
        # That the daemon was killed is the test's own doing, and the browser says so.
        complaints = [it for it in told if not re.search("net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INCOMPLETE_CHUNKED|EMPTY_RESPONSE)", it)]
        asked = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(message["params"]["request"]["url"])
        return complaints, asked

    def is_clean(self):
        complaints, asked = self.told()
        assert not complaints, f"the browser complains: {complaints}"
        outside = [url for url in asked if not url.startswith((self.world.url, "data:"))]
        assert not outside, f"asked outside: {outside}"
        return asked


# Text whose colour stands out too little from what is behind it (WCAG 2, AA).
CONTRAST = """
const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
const behind = (it) => { for (; it; it = it.parentElement) { const c = parse(getComputedStyle(it).backgroundColor); if (c.length && c[3] !== 0) return c; } };
const faint = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (walk.nextNode()) {
  const it = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || it.closest('script, .unseen, .skip') || !it.checkVisibility()) continue;
  seen += 1;
  const style = getComputedStyle(it), size = parseFloat(style.fontSize);
  const [a, b] = [light(parse(style.color)), light(behind(it))].sort((x, y) => y - x);
  const needs = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
  if ((a + 0.05) / (b + 0.05) < needs) faint.push([walk.currentNode.data.trim().slice(0, 40), ((a + 0.05) / (b + 0.05)).toFixed(2)]);
}
if (seen < 10) faint.push('only ' + seen + ' texts were looked at');
return faint;
"""

# What somebody who cannot see the page needs of it.
STRUCTURE = """
const wrong = [], all = (s) => [...document.querySelectorAll(s)];
if (document.documentElement.lang !== 'en') wrong.push('no language');
if (!document.title) wrong.push('no title');
for (const one of ['main', 'header', 'footer', 'nav', 'h1']) if (all(one).length !== 1) wrong.push(all(one).length + ' ' + one);
if (all('[aria-live=polite]').length !== 1 || all('[aria-live=assertive], [role=alert]').length) wrong.push('one polite live region is wanted');
if (all('[aria-live=polite] time, [aria-live=polite] [data-left]').length) wrong.push('seconds are spoken');
for (const it of all('[aria-labelledby]')) if (!document.getElementById(it.getAttribute('aria-labelledby'))) wrong.push('label of ' + it.tagName);
for (const it of all('main section:not([aria-label])')) if (!it.hasAttribute('aria-labelledby')) wrong.push('a section without a name');
for (const it of all('svg[role=img]')) if (!it.getAttribute('aria-label')) wrong.push('a picture without words');
for (const it of all('svg:not([role=img])')) if (it.getAttribute('aria-hidden') !== 'true') wrong.push('a bare picture');
for (const it of all('a, summary')) if (!it.innerText.trim()) wrong.push('something to press without words');
const ids = all('[id]').map((it) => it.id);
if (new Set(ids).size !== ids.length) wrong.push('an id twice');
for (const it of all('.mark')) if (!it.parentElement.innerText.trim()) wrong.push('a shape without a word');
let level = 1;
for (const it of all('h1, h2, h3')) { const next = +it.tagName[1]; if (next > level + 1) wrong.push('a heading is skipped'); level = next; }
return wrong;
"""


def calm(page):
    page.open()
    page.is_headed("All is calm.")
    page.is_live()
    page.waits_for("If a notice came now", "checkpoint", "upload", "last good read", "answered in")
    page.look("calm")
    # The figures go on counting, and the next good read begins them anew.
    seen = set()
    until("the seconds since the last good read to change", lambda: seen.add(page.js(
        "return document.querySelector('.rows [data-ago]').textContent")) or len(seen) > 1)
    asked = page.is_clean()
    assert page.world.url + "events" in asked, asked
    timing = page.js("const it = performance.getEntriesByType('navigation')[0]; return [it.transferSize, it.domContentLoadedEventEnd]")
    first = [entry for entry in asked if entry.startswith(page.world.url)]
    assert first[0] == page.world.url
    print(f"first paint from one request of {timing[0]} bytes, ready after {timing[1]:.0f} ms")


def keyboard(page):
    """Everything that can be pressed is reached with the tab key, is seen to be, and opens."""
    page.js("document.activeElement.blur(); scrollTo(0, 0); window.reached = new Set()")
    left = lambda: page.js("return [...document.querySelectorAll('a, summary')].filter((it) => !window.reached.has(it)).map((it) => it.innerText)")
    # Each once; and as often again, should a new state have replaced something in between.
    for _ in range(2 * len(left())):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        name, pressed, outline = page.js(
            "const it = document.activeElement; window.reached.add(it);"
            "return [it.tagName + ' ' + it.innerText, it.matches('a, summary, body'), getComputedStyle(it).outlineStyle]")
        assert pressed, f"{name} is reached, and cannot be pressed"
        assert name.startswith("BODY") or outline != "none", f"the focus on {name} is not seen"
        if not left():
            break
    assert not left(), f"never reached: {left()}"
    summary = page.driver.find_element(By.TAG_NAME, "summary")
    page.js("arguments[0].focus()", summary)
    summary.send_keys(Keys.ENTER)
    assert page.js("return arguments[0].parentElement.open", summary)
    # What was opened, and the focus, outlive new states.
    shown = page.as_of()
    until("a newer state", lambda: page.as_of() != shown)
    assert page.js("return arguments[0].parentElement.open && document.activeElement === arguments[0]", summary)
    summary.send_keys(Keys.ENTER)


def blind(page):
    page.world.stop_cloud()
    page.is_headed("A source is blind.")
    page.waits_for("Not as it should be", "A notice from it would not be detected", "blind")
    page.says("blind")
    page.look("blind")
    page.is_clean()


def hostile(page):
    """Reads what the upload printed."""
    text = until("the output of the upload", lambda: page.js(
        "const it = [...document.querySelectorAll('pre')].find((it) => it.innerText.includes('part 1 is sent')); return it && it.innerText"))
    for wanted in ["</pre><script>window.fell", "\ufffd"]:
        assert wanted in text, f"{wanted!r} is not in the output that is shown: {text!r}"
    for never in ["\x1b", "\u202e"]:
        assert never not in text
    assert len(text) < 5000, "a line of 1 MiB is shown clipped"


def episode(page):
    page.world.play("--notice-after", "0s", "--time", "110s")
    page.is_headed("This machine will be taken away.")
    page.waits_for("leave-load-balancer", "done", "running", "waits for its time", "until the machine is terminated", "shard 3 of 8")
    count = lambda: page.js("return document.querySelector('.countdown').textContent")
    seen = set()
    until("the countdown to count", lambda: seen.add(count()) or len(seen) >= 3)

    def shown():
        minutes, seconds = re.fullmatch(r"(\d+):(\d\d)", count()).groups()
        return int(minutes) * 60 + int(seconds)

    before, left, after = shown(), page.world.status()["episode"]["deadline"]["seconds-left"], shown()
    assert after - 3 < left < before + 3, (before, left, after)
    said = page.says("taken away")
    assert not re.search(r"\d+s", said), said
    live = lambda: float(page.js("return document.querySelector('.growing').getAttribute('width')").rstrip("%"))
    first = live()
    until("the running bar to grow", lambda: live() > first)
    assert "checkpoint" in page.visible()
    page.look("episode")
    page.theme("dark")
    page.picture("episode-dark")
    page.theme("light")
    page.is_clean()


def two_tabs(page):
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.open()
    page.is_headed("This machine will be taken away.")
    page.is_live()
    page.is_clean()
    page.driver.switch_to.window(first)
    page.is_live()
    shown = page.as_of()
    until("the first tab to go on", lambda: page.as_of() != shown)


def sleeps(page):
    """A page that slept says nothing old once it is awake."""
    page.cdp("Page.setWebLifecycleState", state="frozen")
    page.world.let("checkpoint", 0)
    until("the step to end", lambda: any(it["progress"] == "running" and it["name"] == "upload" for it in page.world.status()["episode"]["steps"]))
    time.sleep(2)
    page.cdp("Page.setWebLifecycleState", state="active")
    # To freeze a page, the browser hides it; so it is shown again, as it is when a lid is opened.
    page.driver.minimize_window()
    page.driver.set_window_size(1000, 1000)
    until("the page to be seen", lambda: not page.js("return document.hidden"))
    until("the page to catch up", lambda: "upload running" in page.js("return document.getElementById('state').dataset.say"))
    page.is_clean()


def restarted(page):
    """The daemon dies under the open page, with a hook at work, and comes back."""
    page.js("window.same = true")
    page.world.kill()
    page.waits_for("Not connected since")
    assert page.js("return getComputedStyle(document.querySelector('main')).filter") != "none", "old figures are greyed"
    page.says("Not connected")
    page.picture("cut")
    page.world.watch(fresh=False)
    page.is_live()
    assert page.js("return !document.documentElement.classList.contains('lost')")
    assert page.js("return window.same"), "the same version needs no new page"
    page.is_clean()


def finished(page):
    page.world.let("upload", 0)
    page.is_headed("Everything is done.")
    page.waits_for("to spare", "Nothing is left to do")
    page.look("finished")
    page.is_clean()


def ran_for(status, step):
    """How many seconds a step has been running."""
    started = step.get("running", {}).get("started")
    at = datetime.datetime.fromisoformat
    return (at(status["now"]) - at(started)).total_seconds() if started else 0


def failed(page):
    page.world.kill()
    page.world.let("upload", 0)
    # A notice of its own: what the scenes before took is not taken from this one.
    page.world.play("--notice-after", "0s", "--time", "110s")
    page.world.watch(fresh=True)
    until("the checkpoint to run", lambda: any(it["name"] == "checkpoint" and it["progress"] == "running" for it in page.world.status()["episode"]["steps"]))
    # Long enough to be seen in the picture.
    until("it to have run for a while", lambda: any(ran_for(page.world.status(), it) > 6 for it in page.world.status()["episode"]["steps"]))
    page.world.let("checkpoint", 3)
    page.is_headed("checkpoint failed.")
    page.waits_for("exit status 3", "failed")
    page.look("failed")
    page.is_clean()


def another_version(page):
    """Another version answers at the same place: the page is fetched anew."""
    with urllib.request.urlopen(page.world.url, timeout=5) as answer:
        policy, document = answer.headers["Content-Security-Policy"], answer.read().decode()
    document = re.sub(r'data-page="[^"]*"', 'data-page="9.9.9 other"', document).replace("checkpoint failed.", "Another version.")
    # Set before the other one answers: a page that is quick is loaded anew at once.
    page.js("window.same = true")
    page.world.kill()
    asked = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.headers["Sec-Fetch-Dest"], self.path))
            self.send_response(200 if self.path.split("?")[0] == "/" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write(document.encode())

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer.allow_reuse_address = True
    server = http.server.ThreadingHTTPServer(("127.0.0.1", page.world.port), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page.is_headed("Another version.")
    assert page.js("return window.same === undefined"), "it was loaded anew"
    # The new page goes on asking, and is content with its own version.
    before = asked.count(("empty", "/?fragment"))
    until("the new page to ask three times", lambda: asked.count(("empty", "/?fragment")) >= before + 3)
    assert [path for kind, path in asked if kind == "document"] == ["/"], asked
    server.shutdown()


def without_javascript(page):
    page.cdp("Emulation.setScriptExecutionDisabled", value=True)
    page.open()
    text = page.visible()
    assert "All is calm." in text and "checkpoint" in text and "last good read" in text, text
    page.cdp("Emulation.setScriptExecutionDisabled", value=False)
    page.told()


def main():
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="spot-watchdog-page-") as directory:
        world, driver = World(directory), None
        try:
            world.play()
            world.watch(fresh=True)
            until("the daemon to hear its cloud", lambda: world.status()["sources"][0].get("last-good-read"))
            driver = browser(pathlib.Path(directory) / "profile")
            page = Page(driver, world)
            for scene in [
                without_javascript, calm, keyboard, blind, episode, two_tabs, sleeps, hostile, restarted, finished, failed, another_version,
            ]:
                began = time.monotonic()
                try:
                    scene(page)
                except Exception:
                    log = (world.directory / "log").read_text(errors="replace").splitlines()[-25:]
                    print(f"--- {scene.__name__}; the end of the log:", *(line[:200] for line in log), sep="\n")
                    driver.save_screenshot(str(PICTURES / "broken.png"))
                    raise
                print(f"{scene.__name__}: well, {time.monotonic() - began:.1f} s", flush=True)
        finally:
            if driver:
                driver.quit()
            world.close()


main()
