"""The page at /, in a real browser."""

import threading

import devtools
import pytest
from local_server import FakeSlots, serving, wait_until

from input_pipeline.tokenizers.parts.chat_template import Message
from train.generation import replies, streaming

pytestmark = pytest.mark.skipif(
  devtools.CHROMIUM is None, reason="there is no Chromium"
)
HOSTILE = '<img src=x onerror="document.title=1"><script>alert(1)</script>'
LAST = "[...document.querySelectorAll('.turn')].at(-1).textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  with devtools.browser(tmp_path_factory.mktemp("profile")) as found:
    found.send(
      "Emulation.setDeviceMetricsOverride",
      width=420,
      height=800,
      deviceScaleFactor=1,
      mobile=True,
    )
    yield found


def opened(page, server):
  """Opens the server's page, without what came before."""
  page.events.clear()
  port = server.server_address[1]
  page.send("Page.navigate", url=f"http://127.0.0.1:{port}/")
  page.until(f"location.port == '{port}' && document.readyState == 'complete'")


def said(page, text):
  page.run(
    f"$('text').value = {text!r}; delete document.documentElement"
    ".dataset.state; $('form').requestSubmit()"
  )


def complaints(page):
  """What the browser's console has to say."""
  page.run("0")
  names = ("Runtime.exceptionThrown", "Log.entryAdded")
  return [e for e in page.events if e["method"] in names]


def scripted(speaker, texts):
  """Slots whose texts are these, and an event to go on after the first."""
  go_on, waiting = threading.Event(), list(texts)
  eos = speaker.found.parts.data.tokenizer.eos

  def draw():
    if waiting and (len(waiting) == len(texts) or go_on.wait(0.05)):
      tokens = list(waiting.pop(0).encode())
      return tokens if waiting else [*tokens, eos]
    return []

  return FakeSlots(draw), go_on


def test_the_page_talks_with_the_model(page, speaker):
  with serving(speaker) as server:
    opened(page, server)
    page.until("$('model').textContent == 'tiny'")
    page.run("$('temperature').value = 0; $('tokens').value = 12")
    messages = []
    for text in ("ba", "ce"):
      said(page, text)
      page.until("document.documentElement.dataset.state == 'idle'")
      messages.append(Message("user", text))
      options = streaming.Options(12, temperature=0.0)
      answer = "".join(replies.answer(speaker, messages, options))
      messages.append(Message("assistant", answer))
      assert page.run(LAST) == answer
    turns = "[...document.querySelectorAll('.turn')].map(t => t.textContent)"
    assert page.run(turns) == [m.content for m in messages]
    assert page.run("document.documentElement.scrollWidth") == 420
    assert complaints(page) == []
    # The window is 128: the oldest turns are dropped, with a notice.
    for _ in range(3):
      said(page, "x" * 20)
      page.until("document.documentElement.dataset.state == 'idle'")
    assert page.run("document.querySelectorAll('.note').length") == 1
    assert page.run("document.querySelectorAll('.wrong').length") == 0
    page.run("$('reset').click()")
    assert page.run(turns) == []


def test_an_answer_is_shown_as_it_comes_and_is_text(page, speaker):
  slots, go_on = scripted(speaker, [HOSTILE, " and more"])
  with serving(speaker, slots=slots) as server:
    opened(page, server)
    said(page, "a")
    page.until(f"{LAST} == {HOSTILE!r}")
    assert page.run("$('send').disabled && !$('stop').disabled")
    go_on.set()
    page.until(f"{LAST} == {HOSTILE + ' and more'!r}")
    assert page.run("document.images.length") == 0
    assert page.run("document.scripts.length") == 1
    assert page.run("document.title") == "Tessera"
    # Nor would the policy let another script run.
    page.run(
      "{const s = document.createElement('script');"
      "s.textContent = 'document.title = 2'; document.body.append(s)}"
    )
    assert page.run("document.title") == "Tessera"
    assert any("Content Security Policy" in str(e) for e in complaints(page))


def test_stop_stops_the_model(page, speaker):
  slots, _ = scripted(speaker, ["so far", "never"])
  with serving(speaker, slots=slots) as server:
    opened(page, server)
    said(page, "a")
    page.until(f"{LAST} == 'so far'")
    page.run("$('stop').click()")
    page.until("document.documentElement.dataset.state == 'idle'")
    wait_until(lambda: not server.engine.held())
    assert page.run(LAST) == "so far"
    assert page.run("messages.length") == 2
    assert page.run("document.querySelectorAll('.wrong').length") == 0


def test_a_key_is_asked_for(page, speaker):
  with serving(speaker, key="sesame") as server:
    opened(page, server)
    said(page, "a")
    page.until("document.querySelector('.wrong') !== null")
    assert "key" in page.run("document.querySelector('.wrong').textContent")
    page.run("$('key').value = 'sesame'; $('tokens').value = 2")
    said(page, "a")
    page.until("document.documentElement.dataset.state == 'idle'")
    assert page.run("document.querySelectorAll('.wrong').length") == 1
    assert page.run("messages.length") == 2
