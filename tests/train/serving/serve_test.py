"""The server: OpenAI's fields, its limits, and what hostile clients get."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import jax
import numpy as np
import pytest
from local_server import (
  FakeSlots,
  raw,
  request,
  serving,
  slots_of,
  slowly,
  wait_until,
)

from input_pipeline.tokenizers.parts.chat_template import Message
from train.generation import replies, streaming
from train.serving import batching, connections, limits, protocol

ASK = {"messages": [{"role": "user", "content": "ba"}], "temperature": 0}
CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def server(speaker):
  with serving(speaker, requests_per_minute=10**6) as found:
    yield found


def alone(speaker, said, **how) -> str:
  """The answer as the library gives it."""
  options = streaming.Options(**{"max_tokens": 20, **how})
  return "".join(replies.answer(speaker, [Message("user", said)], options))


def test_a_chat_has_openais_fields(server, speaker):
  status, headers, found = request(server, CHAT, {**ASK, "max_tokens": 20})
  assert status == 200
  assert headers["X-Content-Type-Options"] == "nosniff"
  assert "Access-Control-Allow-Origin" not in headers
  assert found.pop("id").startswith("chatcmpl-")
  assert abs(found.pop("created") - time.time()) < 60
  usage = found.pop("usage")
  prompt = speaker.chat.prompt([Message("user", "ba")])
  assert usage["prompt_tokens"] == len(prompt)
  assert 1 <= usage["completion_tokens"] <= 20
  total = usage["prompt_tokens"] + usage["completion_tokens"]
  assert usage["total_tokens"] == total
  assert found == {
    "object": "chat.completion",
    "model": "tiny",
    "choices": [
      {
        "index": 0,
        "message": {
          "role": "assistant",
          "content": alone(speaker, "ba", temperature=0),
        },
        "logprobs": None,
        "finish_reason": "stop",
      }
    ],
  }


def test_a_completion_has_openais_fields(server, speaker):
  body = {"prompt": ["ab", [97, 98]], "max_tokens": 3, "temperature": 0}
  status, _, found = request(server, PLAIN, {**body, "model": "tiny"})
  assert status == 200
  assert found["object"] == "text_completion"
  assert found["id"].startswith("cmpl-")
  first, second = found["choices"]
  assert (first["index"], second["index"]) == (0, 1)
  assert first["text"] == second["text"]  # one prompt, as text and as ids
  assert set(first) == {"index", "text", "logprobs", "finish_reason"}
  assert found["usage"]["prompt_tokens"] == 4


@pytest.mark.parametrize("most", [0, 1])
def test_a_harness_is_given_the_log_probabilities(most, server, speaker):
  """As lm-evaluation-harness asks; the values by a pass of its own."""
  prompts = [[97, 98, 99, 100], [98, 97]]
  body = {"prompt": prompts, "echo": True, "logprobs": 2, "max_tokens": most}
  status, _, found = request(server, PLAIN, {**body, "temperature": 0})
  assert status == 200
  for ids, choice in zip(prompts, found["choices"], strict=True):
    told = choice["logprobs"]
    assert {len(x) for x in told.values()} == {len(ids) + most}
    text = "".join(told["tokens"][: len(ids)])
    assert choice["text"].startswith(text) and text == bytes(ids).decode()
    assert told["text_offset"][: len(ids)] == list(range(len(ids)))
    assert told["token_logprobs"][0] is None is told["top_logprobs"][0]
    logs = log_probabilities(speaker, ids)
    want = [logs[i, next] for i, next in enumerate(ids[1:])]
    if most:  # the most likely token follows
      want.append(logs[-1].max())
    np.testing.assert_allclose(told["token_logprobs"][1:], want, atol=1e-4)
    for i, top in enumerate(told["top_logprobs"][1:]):
      assert len(top) <= 3 and told["token_logprobs"][i + 1] in top.values()
      assert max(top.values()) == pytest.approx(logs[i].max(), abs=1e-4)
  if most:  # without the prompt, the same values
    body = {**body, "echo": False, "temperature": 0}
    own = request(server, PLAIN, body)[2]["choices"][0]["logprobs"]
    whole = found["choices"][0]["logprobs"]
    assert own["token_logprobs"] == whole["token_logprobs"][-1:]
    assert own["text_offset"] == [0]


def log_probabilities(speaker, ids):
  """[tokens, vocabulary], by the model without a cache."""
  parts, variables = speaker.found.parts, speaker.found.variables
  logits, _ = parts.model.apply(variables.params, {}, np.array([ids]))
  size = parts.data.tokenizer.vocab_size
  return np.asarray(jax.nn.log_softmax(logits[0, :, :size]))


def events(server, path, body):
  """The data of each event of a stream."""
  status, headers, text = request(server, path, {**body, "stream": True})
  assert status == 200
  assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
  parts = text.split("\n\n")
  assert parts.pop() == ""
  assert all(part.startswith("data: ") for part in parts)
  assert parts.pop() == "data: [DONE]"
  return [json.loads(part[6:]) for part in parts]


def test_a_stream_has_the_text_of_a_whole_answer(server):
  body = {**ASK, "temperature": 1, "seed": 5, "n": 2, "max_tokens": 12}
  _, _, whole = request(server, CHAT, body)
  found = events(
    server, CHAT, {**body, "stream_options": {"include_usage": True}}
  )
  usage = found.pop()
  assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
  assert all(e["object"] == "chat.completion.chunk" for e in found)
  assert len({e["id"] for e in found}) == 1
  for choice in whole["choices"]:
    own = [
      e["choices"][0]
      for e in found
      if e["choices"][0]["index"] == choice["index"]
    ]
    assert own[0]["delta"] == {"role": "assistant", "content": ""}
    said = "".join(each["delta"].get("content", "") for each in own)
    assert said == choice["message"]["content"]
    finishes = [each["finish_reason"] for each in own]
    assert finishes == [None] * (len(own) - 1) + [choice["finish_reason"]]


def test_answers_at_once_are_those_of_one_alone(server, speaker):
  asked = [
    dict(said=f"{said}", temperature=1.0, seed=i, max_tokens=5 + 3 * i)
    for i, said in enumerate(("ba", "ce", "di", "fo", "gu", "ha"))
  ]
  found = [None] * len(asked)

  def ask(i):
    body = {k: v for k, v in asked[i].items() if k != "said"}
    messages = [{"role": "user", "content": asked[i]["said"]}]
    found[i] = request(server, CHAT, {**body, "messages": messages})[2]

  threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(asked))]
  for i, thread in enumerate(threads):
    thread.start()
    time.sleep(0.02 * i)  # some join a batch that is under way
  for thread in threads:
    thread.join()
  for how, answer in zip(asked, found, strict=True):
    text = answer["choices"][0]["message"]["content"]
    assert text == alone(speaker, **how)


def test_a_text_joins_a_batch_that_is_under_way(speaker):
  """And those that were there go on to the same end."""
  slots = slots_of(speaker, limits.Limits(batch=4))
  sizes, advance = [], slots.advance

  def watched(occupied, room, most):
    sizes.append(occupied)
    return advance(occupied, room, most)

  slots.advance = watched
  engine = batching.Engine(speaker, slots, waiting=8)

  def job(seed):
    options = streaming.Options(30 + 20 * seed, temperature=1.0, seed=seed)
    return batching.Job([replies.begin(speaker, b"ab", options)])

  def finished(found):
    while not found.events.get(timeout=60).finish:
      pass

  first, second, third = job(3), job(1), job(2)
  engine.submit(first)
  first.events.get(timeout=60)
  engine.submit(second)
  engine.submit(third)
  finished(first), finished(second), finished(third)
  assert {1, 3} <= set(sizes)
  for found in (first, second, third):
    ids, options = list(b"ab"), found.texts[0].options
    for piece in speaker.write([ids], [options]):
      ids += piece.tokens
    assert list(found.texts[0].ids) == ids
  assert engine.close(60)


def test_stop_strings_end_an_answer(server):
  body = {"prompt": "ab", "max_tokens": 40, "temperature": 0}
  _, _, found = request(server, PLAIN, body)
  text = found["choices"][0]["text"]
  stop = text[3:5]
  _, _, found = request(server, PLAIN, {**body, "stop": [stop]})
  choice = found["choices"][0]
  assert choice["text"] == text[: text.index(stop)]
  assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
  "change, status, param",
  [
    ({"messages": []}, 400, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": "x" * 200}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "messages"),
    (
      {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
      400,
      "messages",
    ),
    ({"temperature": 3}, 400, "temperature"),
    ({"temperature": "hot"}, 400, "temperature"),
    ({"temperature": True}, 400, "temperature"),
    ({"top_p": 0}, 400, "top_p"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"max_tokens": 10**9}, 400, "max_tokens"),
    ({"n": 1000}, 400, "n"),
    ({"stop": ["a"] * 17}, 400, "stop"),
    ({"stop": [""]}, 400, "stop"),
    ({"stop": "x" * 1000}, 400, "stop"),
    ({"seed": 1.5}, 400, "seed"),
    ({"stream": 1}, 400, "stream"),
    ({"logprobs": True}, 400, "logprobs"),
    ({"tools": [{}]}, 400, "tools"),
    ({"temprature": 1}, 400, "temprature"),
    ({"model": "gpt-4"}, 404, "model"),
  ],
)
def test_a_wrong_field_is_named(server, change, status, param):
  found, _, body = request(server, CHAT, {**ASK, **change})
  assert found == status
  assert set(body["error"]) == {"message", "type", "param", "code"}
  assert body["error"]["param"] == param
  assert body["error"]["type"] == "invalid_request_error"
  assert "\n" not in body["error"]["message"]


@pytest.mark.parametrize(
  "body",
  [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"messages": ' + b"9" * 10_000 + b"}",
    b'{"messages": NaN}',
    b'{"prompt": [1e400]}',
    b'{"prompt": [[-1]]}',
    b'{"prompt": [999999999999999999999999]}',
    b'{"prompt": []}',
    b'{"prompt": {"a": 1}}',
    b'{"prompt": ""}',
  ],
)
def test_a_hostile_body_is_refused_in_a_line(server, body):
  for path in (CHAT, PLAIN):
    status, _, found = request(server, path, body)
    assert status == 400
    assert "\n" not in found["error"]["message"]
  assert request(server, CHAT, ASK)[0] == 200


def test_only_what_there_is_is_served(server):
  assert request(server, "/v1/models")[2] == {
    "object": "list",
    "data": [request(server, "/v1/models/tiny")[2]],
  }
  assert request(server, "/v1/models/tiny")[2]["id"] == "tiny"
  assert request(server, "/health")[2] == {"status": "ok"}
  paths = ("/page.html", "/../serve.py", "/%2e%2e/serve.py", "//etc/passwd")
  for path in (*paths, "/v1/models/../../x", "/v1", "/v1/models/other"):
    assert request(server, path)[0] == 404, path
  assert request(server, CHAT)[0] == 405
  for path, method, allowed in (("/", "POST", "GET"), (CHAT, "DELETE", "POST")):
    status, headers, found = request(server, path, b"{}", method=method)
    assert status == 405 and allowed in headers["Allow"]
    assert found["error"]["type"] == "invalid_request_error"
  status, headers, page = request(server, "/")
  assert status == 200 and page.startswith("<!doctype html>")
  policy = headers["Content-Security-Policy"]
  assert "default-src 'none'" in policy and "unsafe" not in policy
  style = page.partition("<style>")[2].partition("</style>")[0]
  assert "--ground:" in style  # of style.css
  digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
  assert f"style-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize(
  "head, status",
  [
    (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    (b"GET / HTTP/1.1\r\nHost: evil.example:80\r\n\r\n", 403),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (
      b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example"
      b"\r\n\r\n",
      403,
    ),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403),
    (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
    (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
    (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    (b"GET / HTTP/9.9\r\n\r\n", 505),
    (
      b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
      b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      411,
    ),
    (
      b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
      b"Content-Type: application/json\r\n"
      b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ",
      400,
    ),
    (
      b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
      b"Content-Type: application/json\r\nContent-Length: -1\r\n\r\n{}",
      400,
    ),
    (
      b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
      b"Content-Type: application/json\r\n\r\n",
      411,
    ),
    (
      b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
      b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
      415,
    ),
    (
      b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
      b"Content-Type: application/json\r\nContent-Length: 99999999\r\n\r\n",
      413,
    ),
  ],
)
def test_a_hostile_head_is_refused(server, head, status):
  answer = raw(server, head)
  # Where more was sent than is read, the system may drop the answer itself.
  if not (status == 431 and not answer):
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"\r\nconnection: close\r\n" in answer.lower()
    assert b"\r\nx-content-type-options: nosniff\r\n" in answer.lower()
  assert request(server, "/health")[0] == 200


def test_a_long_body_is_refused_unread(speaker):
  with serving(speaker, body_bytes=100) as server:
    body = {**ASK, "user": "u" * 100}
    status, _, found = request(server, CHAT, body)
    assert status == 413
    assert found["error"]["message"] == "the body exceeds 100 bytes"
    assert request(server, PLAIN, {"prompt": "a", "max_tokens": 1})[0] == 200


@pytest.mark.parametrize("most", [2**26, 2**10])
def test_a_body_that_arrives_after_its_refusal_is_discarded(
  server, monkeypatch, most
):
  monkeypatch.setattr(connections, "_MOST_DISCARDED", most)
  head = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2000000\r\n\r\n"
  )
  address = ("127.0.0.1", server.server_address[1])
  with socket.create_connection(address, timeout=30) as client:
    client.sendall(head)
    assert client.recv(2**16).startswith(b"HTTP/1.1 413 ")
    limit = pytest.raises(ConnectionError)
    with limit if most < 2**26 else contextlib.nullcontext():
      for _ in range(20):
        client.sendall(b"x" * 2**16)
        time.sleep(0.002)


def test_a_slow_client_is_left(speaker):
  with serving(speaker, seconds_to_send=0.5) as server:
    start = time.monotonic()
    address = ("127.0.0.1", server.server_address[1])
    with (
      socket.create_connection(address, timeout=30) as client,
      contextlib.suppress(ConnectionError),
    ):
      for _ in range(40):  # a byte now and then
        client.sendall(b"G")
        time.sleep(0.1)
      client.settimeout(5)
      assert client.recv(100) == b""
    assert time.monotonic() - start < 10
    head = (
      b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
      b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    )
    assert raw(server, head).startswith(b"HTTP/1.1 408 ")


def test_a_key_is_asked_for(speaker):
  with serving(speaker, key="sesame") as server:
    for headers in (
      {},
      {"Authorization": "Bearer sesam"},
      {"Authorization": "Bearer sesame2"},
      {"Authorization": "Basic sesame"},
      {"Authorization": "sesame"},
    ):
      for path, body in ((CHAT, ASK), ("/v1/models", None)):
        status, found, error = request(server, path, body, headers)
        assert status == 401
        assert found["WWW-Authenticate"] == "Bearer"
        assert error["error"]["code"] == "invalid_api_key"
    right = {"Authorization": "Bearer sesame"}
    assert request(server, CHAT, {**ASK, "max_tokens": 1}, right)[0] == 200
    assert request(server, "/")[0] == 200  # the page asks for the key
    assert not any("sesame" in line for line in server.said)


def test_too_many_requests_are_refused(speaker):
  with serving(speaker, requests_per_minute=3) as server:
    statuses = [request(server, "/v1/models")[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    _, headers, error = request(server, "/v1/models")
    assert 1 <= int(headers["Retry-After"]) <= 20
    assert error["error"]["type"] == "rate_limit_error"
    assert request(server, "/")[0] == 200


def test_a_bucket_fills_again_and_few_are_remembered():
  now = [0.0]
  rate = limits.Rate(60, clock=lambda: now[0], clients=2)
  assert [rate.wait("a") for _ in range(60)] == [0.0] * 60
  assert rate.wait("a") == pytest.approx(1.0)
  now[0] = 0.5
  assert rate.wait("a") == pytest.approx(0.5)
  now[0] = 1.0
  assert rate.wait("a") == 0.0
  for client in ("b", "c", "d"):
    assert rate.wait(client) == 0.0
  assert len(rate._buckets) == 2


def test_what_waits_too_long_is_refused_and_who_goes_is_forgotten(speaker):
  slow = slowly(0.05, count=1)
  body = json.dumps({"prompt": "a", "max_tokens": 100, "stream": True}).encode()
  head = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
  )
  with serving(speaker, slots=slow, waiting=1, rows=1) as server:
    address = ("127.0.0.1", server.server_address[1])
    with socket.create_connection(address) as first:
      first.sendall(head + body)
      assert first.recv(100).startswith(b"HTTP/1.1 200")
      with socket.create_connection(address) as second:
        second.sendall(head + body)
        wait_until(lambda: server.engine.held() == 2)
        status, headers, found = request(server, PLAIN, {"prompt": "a"})
        assert status == 503
        assert headers["Retry-After"] == "5"
        assert found["error"]["type"] == "server_error"
    # Both have gone: nothing is generated any more.
    wait_until(lambda: not server.engine.held())


def test_a_failure_is_reported_and_the_next_request_served(speaker):
  fails = [False, True]

  def draw():
    if fails.pop():
      raise RuntimeError("out of memory")
    return [97]

  with serving(speaker, slots=FakeSlots(draw)) as server:
    body = {"prompt": "a", "max_tokens": 1}
    status, _, found = request(server, PLAIN, body)
    assert (status, found["error"]["type"]) == (500, "server_error")
    assert "memory" not in found["error"]["message"]
    assert any("out of memory" in line for line in server.said)
    fails[:] = [False] * 9
    assert request(server, PLAIN, body)[0] == 200


def test_another_site_may_ask_where_it_is_named(speaker):
  with serving(speaker, origin="https://a.example") as server:
    headers = {"Origin": "https://a.example"}
    status, found, _ = request(server, "/v1/models", headers=headers)
    assert status == 200
    assert found["Access-Control-Allow-Origin"] == "https://a.example"
    status, found, _ = request(server, CHAT, None, headers, "OPTIONS")
    assert status == 204
    assert "POST" in found["Access-Control-Allow-Methods"]
    other = {"Origin": "https://b.example"}
    assert request(server, "/v1/models", headers=other)[0] == 403
    assert request(server, CHAT, None, other, "OPTIONS")[0] == 403


def test_a_connection_serves_several_requests(server):
  client = http.client.HTTPConnection(*server.server_address[:2], timeout=30)
  for body in (b"{}", b"nonsense", json.dumps({**ASK, "n": 1}).encode()):
    client.request("POST", CHAT, body, {"Content-Type": "application/json"})
    answer = client.getresponse()
    assert json.loads(answer.read())
  assert answer.status == 200
  client.close()


def test_a_body_that_is_not_read_is_no_request(server):
  inner = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
  head = (
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
  )
  answer = raw(server, head % len(inner) + inner)
  assert answer.count(b"HTTP/1.1") == 1


def test_a_body_may_hold_what_changes_nothing():
  allowed = limits.Limits()
  body = {**ASK, "user": "me", "presence_penalty": 0, "logprobs": False}
  found = protocol.chat(body, "tiny", allowed)
  assert found.messages == (Message("user", "ba"),)
  parts = [{"type": "text", "text": "b"}, {"type": "text", "text": "a"}]
  body = {"messages": [{"role": "user", "content": parts}]}
  assert protocol.chat(body, "tiny", allowed).messages == found.messages


def command(workdir, *flags, **env):
  return subprocess.Popen(
    [sys.executable, "-m", "train.serve", f"--workdir={workdir}", *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, **env},
    cwd=pathlib.Path(__file__).parents[3],
  )


def test_the_command_serves_and_ends_gracefully(chat_run, tmp_path):
  key = tmp_path / "key"
  key.write_text("sesame\n")
  flags = ["--port=0", "--batch=1", f"--api_key_file={key}"]
  process = command(chat_run, *flags)
  try:
    line = process.stdout.readline()
    assert line.startswith("run at http://127.0.0.1:")
    url = line.split()[-1]
    asked = urllib.request.Request(
      f"{url}{CHAT}",
      json.dumps({**ASK, "stream": True, "max_tokens": 60}).encode(),
      {"Content-Type": "application/json", "Authorization": "Bearer sesame"},
    )
    with urllib.request.urlopen(asked, timeout=120) as answer:
      answer.readline()
      process.send_signal(signal.SIGTERM)
      assert answer.read().endswith(b"data: [DONE]\n\n")
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "warning" not in error and "Traceback" not in error
  finally:
    process.kill()


@pytest.mark.slow
def test_a_wrong_command_is_one_line(chat_run, tmp_path):
  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    for flags, message in (
      (["--template=llama3"], "--template=llama3: the tokenizer has none of"),
      ([f"--api_key_file={tmp_path}/no"], "No such file"),
      ([f"--port={port}"], f"--port={port}: Address already in use"),
    ):
      process = command(chat_run, *flags)
      _, error = process.communicate(timeout=120)
      assert process.returncode == 2
      assert message in error.splitlines()[-1]
