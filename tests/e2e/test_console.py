"""The console in a real browser, on a real gateway that wants keys."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from gateway.access.keys import digest_of, new_secret
from tests.gateway.test_process import gateway

SECRET = new_secret("console")
STAGES = ["route", "mount", "recall", "infer", "negotiate", "antibias", "write"]
WIDE, NARROW = {"width": 1200, "height": 850}, {"width": 320, "height": 700}
MARKUP = "<img src=x onerror=\"document.title='owned'\"> is what Bob writes in his mails."
NOTES = (
    "My cat is called Biscuit and she is 4 years old.",
    "I live in Lyon and work for Acme Robotics.",
    "My server Hyperion has 64 GB of memory.",
    "My sister Alice lives in Lyon too, with her dog Rex.",
    "Hyperion runs PostgreSQL 16 for Acme Robotics.",
    MARKUP,
)
SCREENSHOTS = os.environ.get("KIKI_TEST_SCREENSHOTS")
"""Folder for the pictures of docs/console.md; unset takes none."""

expect.set_options(timeout=30_000)  # a loaded machine answers slowly


@dataclass
class Console:
    browser: Browser
    api: httpx.Client

    @property
    def address(self) -> str:
        return f"{self.api.base_url}".rstrip("/") + "/console"

    def open(self, view: str, user: str, **options) -> Page:
        """The page in a new profile, as a caller with a key."""
        options = {"viewport": WIDE, "reduced_motion": "reduce"} | options
        context = self.browser.new_context(**options)
        context.add_init_script(f"sessionStorage.setItem('kiki-key', '{SECRET}')")
        page = context.new_page()
        page.goto(f"{self.address}/#{view}")
        page.get_by_text("Caller").click()
        page.get_by_label("User").fill(user)
        page.get_by_label("User").press("Enter")
        page.get_by_text("Caller").click()
        expect(page.locator("#state")).to_have_text("ok")
        return page

    def remember(self, user: str) -> list[str]:
        """Keeps the notes; gives their ids."""
        items = [
            {"text": text, "user": user, "conversation": "notes", "id": f"{user}-{number}"}
            for number, text in enumerate(NOTES)
        ]
        kept = self.api.post("/v1/memory", params={"wait": True}, json=items)
        assert kept.status_code == 200, kept.text
        return [str(item["id"]) for item in items]


@pytest.fixture(scope="module")
def console(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    keys = f"console:{digest_of(SECRET)}:chat+route+memory"
    with gateway(tmp_path_factory.mktemp("console"), api_keys=keys) as served:
        headers = {"authorization": f"Bearer {SECRET}"}
        with httpx.Client(
            base_url=served.client.base_url, headers=headers, timeout=120, trust_env=False
        ) as api:
            yield Console(browser, api)


@pytest.fixture(autouse=True)
def _closed(browser: Browser) -> Iterator[None]:
    yield
    for context in browser.contexts:
        context.close()


def ask(page: Page, text: str, **choices: str) -> Locator:
    """Asks, and opens what is told about the answer."""
    for label, choice in choices.items():
        page.get_by_label(label.replace("_", " ")).select_option(choice)
    page.get_by_label("Tokens at most").fill("24")
    page.get_by_label("Question").fill(text)
    page.get_by_role("button", name="Send").click()
    told = page.locator("article").last.locator("details.explained")
    expect(told).to_be_visible()
    told.locator("> summary").click()
    return told


def opened(told: Locator, stage: str) -> Locator:
    part = told.locator(f"details.stage[data-stage={stage}]")
    part.locator("summary").click()
    return part


def picture(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"console-{name}.png")


def violations(page: Page) -> list[tuple[str, str]]:
    """What axe finds on the page, with the first element of each."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found]


def test_without_a_key_the_page_says_what_is_missing_and_with_one_it_works(console):
    page = console.browser.new_page()
    page.goto(console.address)
    expect(page.locator("#state")).to_have_text("key needed")
    expect(page.locator("#chat-note")).to_contain_text("needs an API key")
    page.get_by_label("API key").fill("wrong")
    page.get_by_label("API key").press("Enter")
    expect(page.locator("#chat-note")).to_contain_text("not one of this gateway's")
    page.get_by_label("API key").fill(SECRET)
    page.get_by_label("API key").press("Enter")
    expect(page.locator("#state")).to_have_text("ok")
    expect(page.locator("#chat-note")).to_be_empty()
    expect(page.get_by_label("Model").locator("option")).not_to_have_count(1)
    kept = page.evaluate("[{...sessionStorage}, {...localStorage}, document.cookie]")
    assert SECRET in kept[0].values()
    assert kept[1:] == [{}, ""]


def test_an_answer_streams_in_and_its_seven_stages_are_told(console):
    console.remember("anna")
    page = console.open("chat", "anna")
    page.evaluate("""() => {
      window.lengths = new Set();
      const said = document.getElementById("said");
      new MutationObserver(() => {
        const text = said.querySelector("article:not(.asked) .text");
        window.lengths.add(text?.textContent.length);
      }).observe(said, {childList: true, subtree: true});
    }""")
    told = ask(page, "Write SQL that counts the rows of the table orders on Hyperion.")
    assert page.evaluate("window.lengths.size") > 3
    assert told.locator("details.stage > summary > span:first-child").all_inner_texts() == STAGES
    for time in told.locator("details.stage .ms").all_inner_texts():
        assert re.fullmatch(r"[\d.]+ ms", time)
    expect(opened(told, "route").get_by_role("table")).to_contain_text("sql")
    expect(opened(told, "mount").get_by_role("table", name="Adapters")).to_contain_text("1.000")
    expect(opened(told, "infer")).to_contain_text("prompt tokens")
    expect(opened(told, "write")).to_contain_text("chatcmpl-")
    page.locator("article").first.scroll_into_view_if_needed()
    picture(page, "chat")


def test_a_recalled_episode_can_be_deleted_where_it_is_shown(console):
    ids = console.remember("bert")
    page = console.open("chat", "bert")
    recall = opened(ask(page, "What does my server Hyperion run for Acme Robotics?"), "recall")
    item = recall.locator(f"li[data-id={ids[4]}]")
    expect(item).to_contain_text(NOTES[4])
    item.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Keep").click()
    assert console.api.get(f"/v1/memory/{ids[4]}", params={"user": "bert"}).status_code == 200
    item.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(item).to_have_text("Deleted.")
    assert console.api.get(f"/v1/memory/{ids[4]}", params={"user": "bert"}).status_code == 404


def test_a_panel_shows_its_drafts_and_who_voted_how(console):
    page = console.open("chat", "carl")
    told = ask(page, "Call a bash command from Python.", Plan="panel", Negotiation="true")
    weights = opened(told, "mount").get_by_role("table", name="Adapters")
    expect(weights).to_contain_text("python")
    expect(weights).to_contain_text("shell")
    negotiated = opened(told, "negotiate")
    drafts = negotiated.get_by_role("list", name="Candidates").get_by_role("listitem")
    assert drafts.count() >= 2
    expect(drafts.filter(has_text="(chosen)")).to_have_count(1)
    expect(negotiated.get_by_role("table", name="Votes").first).to_contain_text(
        re.compile("KEEP|REFUSE|NEUTRAL")
    )
    negotiated.scroll_into_view_if_needed()
    picture(page, "panel")


def test_biased_passages_are_shown_with_what_became_of_them(console):
    page = console.open("chat", "dora")
    page.get_by_label("Model").select_option("base")
    sentence = "Women are too emotional to be leaders and men are better at math."
    told = ask(page, f"Repeat this sentence: {sentence}", Review_for_bias="true")
    review = opened(told, "antibias")
    expect(review.get_by_role("table", name="Found before")).to_contain_text("stereotyping")
    expect(review).to_contain_text("Left after")
    expect(review).to_contain_text("action")


def test_an_answer_can_be_stopped_and_a_refusal_is_told(console):
    page = console.open("chat", "emil")
    page.get_by_label("Question").fill("Write a very long story about a robot.")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("article").last.locator(".text")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#chat-note")).to_have_text("Stopped.")
    page.get_by_text("Caller").click()
    page.get_by_label("API key").fill("revoked")
    page.get_by_label("Question").fill("And another one.")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#chat-note")).to_have_class(re.compile("error"))
    expect(page.locator("#chat-note")).to_contain_text("not one of this gateway's")
    expect(page.get_by_label("Question")).to_have_value("And another one.")


def test_the_route_explorer_shows_every_probability(console):
    page = console.open("route", "fay")
    page.get_by_label("Prompt").fill("Call a bash command from Python.")
    page.locator("#route-form").get_by_role("button").click()
    expect(page.locator("#route-note")).to_have_text("Active: python, shell.")
    rows = page.get_by_role("table", name="Probabilities").get_by_role("row")
    answer = console.api.post("/v1/route", json={"query": "x", "explain": True}).json()
    assert rows.count() == len(answer["explain"]["scores"]) + 1
    expect(rows.nth(1)).to_contain_text(re.compile(r"python\s*0\.\d{3}.*active", re.DOTALL))
    expect(page.get_by_role("table", name="Nearest prompts")).to_be_visible()
    picture(page, "route")
    page.get_by_label("Threshold").fill("0.99")
    page.locator("#route-form").get_by_role("button").click()
    expect(page.locator("#route-note")).to_have_text("No domain is active: the base answers.")


def test_the_memory_is_searched_edited_and_deleted_and_its_text_stays_text(console):
    ids = console.remember("gus")
    page = console.open("memory", "gus")
    found = page.locator("#found > li")
    expect(found).to_have_count(len(NOTES))
    expect(page.get_by_text(MARKUP, exact=True)).to_be_visible()
    assert page.locator("main img").count() == 0
    assert page.title() == "Memory - kiki"

    page.get_by_label("Search for").fill("What is the name of my cat?")
    page.get_by_role("button", name="Search").click()
    expect(found.first).to_contain_text("Biscuit")
    expect(found.first).to_contain_text("score")
    found.first.get_by_role("button", name="Edit").click()
    page.get_by_label("What the user said").fill("My cat is called Waffle.")
    page.get_by_role("button", name="Save").click()
    expect(found.first).to_contain_text("Waffle")
    cat = console.api.get(f"/v1/memory/{ids[0]}", params={"user": "gus"}).json()
    assert cat["text"] == "My cat is called Waffle."

    found.first.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(found.first).to_have_text("Deleted.")
    expect(page.locator("#memory-counts")).to_contain_text(f"{len(NOTES) - 1} episodes")
    assert console.api.get(f"/v1/memory/{ids[0]}", params={"user": "gus"}).status_code == 404


def test_the_graph_of_facts_is_walked_with_the_arrow_keys(console):
    console.remember("hana")
    page = console.open("memory", "hana")
    expect(page.get_by_role("button", name="Name or quantity: lyon, in 2 facts")).to_be_visible()
    picture(page, "memory")
    nodes = page.locator("svg.graph g[role=button]")
    nodes.first.focus()
    page.keyboard.press("ArrowLeft")
    expect(nodes.last).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(nodes.nth(1)).to_be_focused()
    assert page.locator("svg.graph g[tabindex='0']").count() == 1
    text = nodes.nth(1).locator("title").text_content()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Search for")).to_have_value(str(text))
    expect(page.locator("#found-title")).to_be_focused()


def test_all_of_it_works_from_the_keyboard(console):
    console.remember("ida")
    page = console.open("chat", "ida")
    page.reload()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Question")).to_be_focused()
    outline = "getComputedStyle(document.activeElement).outlineWidth"
    assert page.evaluate(outline) == "3px"
    page.keyboard.type("Name one colour.")
    page.keyboard.press("Enter")
    expect(page.locator("details.explained")).to_be_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("details.stage[data-stage=route]")).to_have_attribute("open", "")
    page.get_by_role("link", name="Memory").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#memory-title")).to_be_focused()
    expect(page.locator("#found > li").first).to_be_visible()
    while not page.evaluate("document.activeElement.classList.contains('danger')"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(":focus")).to_have_text("Delete")


def test_health_is_live(console):
    page = console.open("health", "jon")
    memory = page.get_by_role("heading", name="Memory").last.locator("xpath=..")
    for word in ("State", "Not in the stores yet", "Decided by"):
        expect(memory).to_contain_text(word)
    engine = page.get_by_role("heading", name="Engine").locator("xpath=..")
    expect(engine).to_contain_text("llamacpp")
    expect(engine).to_contain_text("Circuit breakers")
    before = console.api.get("/health").json()["memory"]["episodes"]
    console.api.post("/v1/memory", json={"text": "I like tea.", "user": "jon"})
    expect(memory).to_contain_text(re.compile(rf"Episodes\s*{before + 1}\D"))
    page.route("**/health", lambda route: route.abort())
    expect(page.locator("#state")).to_have_text("unavailable")
    page.unroute("**/health")
    expect(page.locator("#state")).to_have_text("ok")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_in_any_view_and_no_view_is_too_wide(console, colours):
    console.remember("kai")
    page = console.open("chat", "kai", color_scheme=colours)
    told = ask(page, "Which database runs on Hyperion?")
    for stage in STAGES:
        opened(told, stage)
    page.get_by_text("Caller").click()
    assert violations(page) == []
    page.get_by_text("Caller").click()
    for view, ready in (("route", "#routed table"), ("memory", "svg.graph"), ("health", "dl")):
        page.get_by_role("link", name=view).click()
        if view == "route":
            page.get_by_label("Prompt").fill("Call a bash command from Python.")
            page.locator("#route-form").get_by_role("button").click()
        expect(page.locator(f"#view-{view}").locator(ready).first).to_be_visible()
        assert violations(page) == [], view
    if colours == "dark":
        picture(page, "health")
    page.set_viewport_size(NARROW)
    for view in ("chat", "route", "memory", "health"):
        page.get_by_role("link", name=view).click()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW["width"], view
        assert violations(page) == [], view


def test_colours_follow_the_system_until_they_are_chosen(console):
    page = console.open("chat", "lea", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    page.get_by_text("Caller").click()
    page.get_by_label("Colours").select_option("dark")
    assert page.evaluate(ground) == dark
    page.reload()
    assert page.evaluate(ground) == dark


def test_the_page_asks_no_other_host(console, net_log):
    """Last, since the log is whole when the browser has ended. It holds what Chromium asks of its
    maker too, whatever page is open: that has no initiator, and finds no host."""
    console.browser.close()
    log = json.loads(net_log.read_text())
    connecting = log["constants"]["logEventTypes"]["TCP_CONNECT_ATTEMPT"]
    asked, reached = set(), set()
    for event in log["events"]:
        params = event.get("params", {})
        if params.get("initiator") == f"{console.api.base_url}".rstrip("/"):
            asked.add(urlsplit(params["url"]).hostname)
        if event["type"] == connecting and "address" in params:
            reached.add(params["address"].rpartition(":")[0].strip("[]"))
    assert asked == {"127.0.0.1"}
    assert reached == {"127.0.0.1"}
