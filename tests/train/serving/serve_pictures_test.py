"""train.serve for runs that read pictures: the route, its limits, the page."""

import asyncio
import base64
import contextlib
import functools
import io

import devtools
import jax.numpy as jnp
import numpy as np
import pytest
from local_server import request
from PIL import Image

from configs.vision import conv_fashion_mnist, fcn_camvid, yolo_bccd
from train import assembly, trained, types
from train.prediction.parts import preparation, single
from train.serving import limits, pictures, server, web
from train.serving.protocol import ApiError


def detections(variables, batch, rng):
  rows = batch["image"].shape[0]
  share = jnp.tile(jnp.linspace(0.0, 1.0, 8), (rows, 2, 8, 1))
  return {
    "boxes": jnp.tile(
      jnp.array([[12.0, 10, 36, 30], [0, 0, 48, 40]]), (rows, 1, 1)
    ),
    "scores": jnp.tile(jnp.array([0.9, 0.2]), (rows, 1)),
    "classes": jnp.zeros((rows, 2), jnp.int32),
    "masks": share,
  }


def classes(variables, batch, rng):
  return batch["image"].mean((1, 2)) * jnp.arange(10.0)[None]


def pixels(variables, batch, rng):
  mean = batch["image"].mean(-1)
  return jnp.stack([-mean, mean], -1)


RUNS = {
  "objects": (yolo_bccd, {"detections": detections}),
  "classes": (conv_fashion_mnist, {"logits": classes}),
  "pixels": (fcn_camvid, {"logits": pixels}),
}


@pytest.fixture(scope="module")
def predictors(tmp_path_factory):
  """(name of a run) -> its Single."""

  @functools.cache
  def made(name):
    module, predict = RUNS[name]
    config = module.get_config("smoke")
    config.mesh = dict(data=1, tensor=-1)
    parts = assembly.experiment(config, str(tmp_path_factory.mktemp(name)))
    parts = parts._replace(task=types.Task(None, {}, predict))
    run = trained.Trained(parts, types.Variables({}, {}), 0)
    return single.Single(run, preparation.of_any_picture(run))

  return made


@contextlib.contextmanager
def serving(predict, **given):
  allowed = limits.Limits(**{"body_bytes": 2**20, **given})
  engine = pictures.Pictures(predict, allowed, "tiny")
  service = web.Service(
    engine.answer,
    engine.models,
    allowed,
    log=lambda line: None,
    paths=pictures.PATHS,
    page=pictures.PAGE,
  )
  found = server.Server("127.0.0.1", 0, service)
  found.start()
  try:
    yield found
  finally:
    found.stop_accepting()
    assert engine.close(60)
    assert found.join(60)


def encoded(size=(96, 80), colour=(200, 30, 30), kind="PNG", **options):
  file = io.BytesIO()
  image = Image.new("RGB", size, colour)
  image.paste((20, 30, 200), (0, 0, size[0] // 2, size[1]))
  image.save(file, kind, **options)
  return base64.b64encode(file.getvalue()).decode()


def answered(predict, body):
  engine = pictures.Pictures(predict, limits.Limits(pixels=10_000), "tiny")
  try:
    return asyncio.run(engine.answer("/v1/images", body).whole())
  finally:
    assert engine.close(10)


def test_an_answer_is_the_json_of_predict(predictors):
  got = answered(predictors("objects"), {"image": encoded(), "min_score": 0.5})
  (one,) = got["objects"]
  assert (got["width"], got["height"], got["model"]) == (96, 80, "tiny")
  assert one["bbox"] == [24.0, 20.0, 48.0, 40.0] and one["score"] == 0.9
  assert one["segmentation"]["size"] == [80, 96] and "boxes" not in got


@pytest.mark.slow
def test_classes_and_masks(predictors):
  got = answered(predictors("classes"), {"image": encoded(), "top": 3})
  assert {"label", "label_3", "probability_3"} <= got.keys()
  assert "label_4" not in got
  url = f"data:image/png;base64,{encoded()}"
  got = answered(predictors("pixels"), {"image": url})
  head, _, content = got["mask"].partition(",")
  assert head == "data:image/png;base64" and "overlay" not in got
  with Image.open(io.BytesIO(base64.b64decode(content))) as image:
    assert image.size == (96, 80)
    assert set(np.unique(np.asarray(image))) <= {0, 1}


def cut(text):
  return base64.b64encode(base64.b64decode(text)[:90]).decode()


@pytest.mark.parametrize(
  ("body", "status", "line"),
  [
    ([], 400, "must be a JSON object"),
    ({}, 400, "image must be a file in base64"),
    ({"image": 3}, 400, "image must be a file in base64"),
    ({"image": "http://x/y.png"}, 400, "not valid base64"),
    ({"image": "data:image/png,abc"}, 400, "data URL in base64"),
    ({"image": "aGVsbG8="}, 400, "image is no JPEG"),
    ({"image": cut(encoded())}, 400, "image: "),
    ({"image": encoded((101, 100))}, 413, "101 x 100 pixels; at most 10000"),
    ({"image": encoded(), "top": True}, 400, "top must be"),
    ({"image": encoded(), "min_score": 2}, 400, "min_score must be"),
    ({"image": encoded(), "min_score": float("nan")}, 400, "min_score must be"),
    ({"image": encoded(), "size": 2}, 400, "unknown field 'size'"),
    ({"image": encoded(), "model": "x"}, 404, "does not exist"),
  ],
)
def test_refusals_are_one_line(predictors, body, status, line):
  with pytest.raises(ApiError) as found:
    answered(predictors("objects"), body)
  assert found.value.status == status
  assert line in found.value.message and "\n" not in found.value.message


def test_too_many_pictures_are_refused(predictors):
  engine = pictures.Pictures(
    predictors("objects"), limits.Limits(waiting=0), "tiny"
  )

  async def both():
    answers = [
      engine.answer("/v1/images", {"image": encoded()}).whole()
      for _ in range(3)
    ]
    return await asyncio.gather(*answers, return_exceptions=True)

  found = asyncio.run(both())
  refused = [each for each in found if isinstance(each, ApiError)]
  assert [each.status for each in refused] == [503] * len(refused)
  assert 1 <= len(refused) < 3
  assert engine.close(10)
  with pytest.raises(ApiError, match="shutting down"):
    asyncio.run(engine.answer("", {"image": encoded()}).whole())


@pytest.mark.slow
def test_the_route_and_the_page_over_http(predictors):
  with serving(predictors("objects"), body_bytes=5000) as found:
    status, headers, page = request(found, "/")
    assert status == 200 and "Drop a picture" in page
    assert "script-src 'sha256-" in headers["content-security-policy"]
    assert request(found, "/v1/models")[2]["data"][0]["id"] == "tiny"
    status, _, got = request(found, "/v1/images", {"image": encoded()})
    assert status == 200 and len(got["objects"]) == 2
    large = {"image": "A" * 5001}
    assert request(found, "/v1/images", large)[0] == 413
    assert request(found, "/v1/images", b"x")[0] == 400
    assert request(found, "/v1/chat/completions", {})[0] == 404
    other = {"Origin": "http://evil.example"}
    body = {"image": encoded()}
    assert request(found, "/v1/images", body, other)[0] == 403


DROP = """
(() => {
  const bytes = Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], 'a.png', {type: 'image/png'}));
  delete document.documentElement.dataset.state;
  document.dispatchEvent(new DragEvent('drop', {dataTransfer: files}));
})()
"""


@pytest.mark.slow
@pytest.mark.skipif(devtools.CHROMIUM is None, reason="there is no Chromium")
def test_the_page_in_a_browser(predictors, tmp_path):
  idle = "document.documentElement.dataset.state == 'idle'"
  pixel = "[...$('canvas').getContext('2d').getImageData(%d, %d, 1, 1).data]"
  cells = "[...document.querySelectorAll('td')].map(c => c.textContent)"
  with devtools.browser(tmp_path) as page:
    for name in RUNS:
      with serving(predictors(name)) as found:
        port = found.server_address[1]
        page.send("Page.navigate", url=f"http://127.0.0.1:{port}/")
        page.until(
          f"location.port == '{port}' && document.readyState == 'complete'"
        )
        page.run(DROP % encoded())
        page.until(idle)
        assert page.run("$('state').className") == ""
        assert page.run("[$('canvas').width, $('canvas').height]") == [96, 80]
        if name == "objects":
          assert page.run(cells) == ["class 0", "0.900"]
          assert page.run(pixel % (24, 40))[:3] != [20, 30, 200]
          # The mask is the right half of the box.
          assert page.run(pixel % (66, 50))[:3] != [200, 30, 30]
          assert page.run(pixel % (90, 70))[:3] == [200, 30, 30]
          page.run("$('score').value = 0.1")
          page.run("$('score').dispatchEvent(new Event('input'))")
          assert len(page.run(cells)) == 4
        elif name == "pixels":
          assert page.run(pixel % (90, 70))[:3] != [200, 30, 30]
        else:
          assert len(page.run(cells)) == 10
        page.run(DROP % base64.b64encode(b"nothing").decode())
        page.until(idle)
        assert "image is no JPEG" in page.run("$('state').textContent")
    names = ("Runtime.exceptionThrown",)
    assert not [e for e in page.events if e["method"] in names]
