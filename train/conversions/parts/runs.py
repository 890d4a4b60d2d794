"""Converts a pretrained model to a workdir, and a workdir to a folder."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common import bounded_file, leaf, mirror, storage
from common.errors import UserError
from common.nested import nested
from input_pipeline import tokenizers
from input_pipeline.tokenizers.parts import huggingface
from train import assembly, run_data, sharding, trained
from train.checkpointing import checkpoint, health
from train.conversions.parts import family as family_lib
from train.conversions.parts import folder as folder_lib
from train.conversions.parts import (
  original_files,
  run_config,
  special_tokens,
  weights,
)
from train.optimization import parameter_rules
from train.workdir import run_record

KEPT = original_files.FOLDER
_MOST_TOKENIZER = 2**26  # the limit of input_pipeline.tokenizers
_MOST_PART = 5 * 10**9
# Tokenizer files, in order of preference, and the spec of our tokenizer.
_TOKENIZERS = {
  "tokenizer.json": "tokenizers:tokenizer.json",
  "vocab.txt": "wordpiece:vocab.txt",
  "spiece.model": "sentencepiece:spiece.model",
  "tokenizer.model": "sentencepiece:tokenizer.model",
}


def make(
  path: str,
  workdir: str,
  *,
  sha256: str | None = None,
  source: str | None = None,
  say: Callable[[str], None] = print,
) -> None:
  """Creates a workdir from the model in a folder, completely or not at all.

  The workdir has one checkpoint, at step 0, with an optimizer that has no
  state. To continue training, set another run's config.init_from to it.

  Args:
    path: the folder, or a .safetensors file.
    workdir: the workdir to create; it must not exist or be empty.
    sha256: the expected digest of the file of weights, or None.
    source: the URI of data for evaluation; None for fake data.
    say: receives one line per finding.

  Raises:
    UserError: the folder cannot be read, or the workdir is in use.
  """
  storage.check_local("workdir", workdir)
  target = pathlib.Path(workdir)
  _check_free(target)
  found = weights.read(path, sha256)
  target.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    prefix=f".{target.name}.", dir=target.parent
  ) as made:
    count = _fill(pathlib.Path(made) / "run", path, found, source, say)
    os.replace(pathlib.Path(made) / "run", target)
  say(
    f"{mirror.named(workdir)}: {found.config['model_type']} with {count:,}"
    f" parameters in {found.model['param_dtype']}"
  )


def _check_free(target: pathlib.Path) -> None:
  """Raises UserError unless the target is missing or an empty folder."""
  if not os.path.lexists(target):
    return
  if target.is_symlink() or not target.is_dir():
    raise UserError(f"{target}: exists and is not a folder")
  if (target / "config.json").exists():
    raise UserError(f"{target}: is in use: it has a config.json already")
  if any(target.iterdir()):
    raise UserError(f"{target}: is in use: it is not empty")


def _fill(run, path, found, source, say) -> int:
  """Writes the contents of a workdir; returns the number of parameters."""
  folder = weights.folder_of(path)
  run.mkdir()
  found = found._replace(config=special_tokens.completed(folder, found.config))
  words, notes = _tokenizer(folder, found, run)
  for note in (*found.notes, *notes):
    say(note)
  _keep(path, found, run / KEPT, words and _path_of(words.spec))
  config, data = run_config.described(found, words, source)
  parts = assembly.assemble(config, _one_device(), data)
  _, abstract = assembly.state_of(parts)
  state = _state(parts, abstract, found)
  count = sum(x.size for x in jax.tree.leaves(state.variables.params))
  run_record.begin(str(run), config, data)
  manager = checkpoint.open_manager(str(run / "checkpoints"))
  record = {
    "position": 0,
    "evaluated": False,
    "health": health.Health()._asdict(),
    "rollbacks": 0,
  }
  checkpoint.save(manager, 0, state, record)
  checkpoint.check(manager, wait=True)
  manager.close()
  return count


def _keep(path, found, kept: pathlib.Path, tokenizer: str | None) -> None:
  """Copies what the folder has beside the parameters and the tokenizer."""
  kept.mkdir()
  folder = weights.folder_of(path)
  for name, most in (
    (folder_lib.CONFIG, folder_lib.MOST_CONFIG),
    *folder_lib.COMPANIONS.items(),
  ):
    if name != tokenizer:  # the run has it already
      _copy(folder / name, kept / name, most)
  with folder_lib.opened(path, check=False) as opened:
    original_files.keep(opened, found.names, found.used, kept)


def _path_of(spec: str) -> str:
  """Returns the file that a spec of _TOKENIZERS names, without its options."""
  return spec.partition(":")[2].partition("?")[0]


def _one_device() -> jax.sharding.Mesh:
  return sharding.make_mesh({"data": 1}, jax.devices()[:1])


def _state(parts, abstract, found):
  """Returns the state of step 0 with the pretrained parameters on devices."""

  def rest(rng):
    batch = leaf.arrays(parts.data.spec, parts.data.batch_size, jnp.zeros)
    return parts.learner.init(rng, batch)._replace(variables=())

  state = jax.jit(rest)(jax.random.key(0))
  arrays = {"params": found.params, "model_state": found.model_state}
  placed = {}
  for name, tree in arrays.items():
    wanted = parameter_rules.flat(getattr(abstract.variables, name))
    leaves = parameter_rules.flat(tree)
    tree.clear()  # frees each array as soon as it is on the device
    placed[name] = nested(
      {
        path: jax.device_put(
          leaves.pop(path).astype(want.dtype, copy=False), want.sharding
        )
        for path, want in wanted.items()
      }
    )
  return state._replace(
    variables=abstract.variables._replace(**placed, frozen=())
  )


def _tokenizer(folder, found, run):
  """Copies the tokenizer to the run; returns (tokenizer or None, notes)."""
  for name, spec in _TOKENIZERS.items():
    path = folder / name
    if not os.path.lexists(path):
      continue
    try:
      content = bounded_file.read(path, _MOST_TOKENIZER)
      words = tokenizers.rebuild(spec, content)
      marks = _marks(folder, found, spec, words)
      if marks:
        words = tokenizers.rebuild(f"{spec}?{'&'.join(marks)}", content)
    except ValueError as error:
      at = "" if str(error).startswith(str(path)) else f"{path}: "
      raise UserError(f"{at}{error}") from error
    size = found.model.get("vocab_size")
    if size is not None and words.vocab_size > size:
      raise UserError(
        f"{path}: has {words.vocab_size} tokens, but the model has only {size}"
      )
    (run / words.file_name).write_bytes(content)
    return words, _template(folder)
  if "vocab_size" not in found.model:
    return None, []
  return None, [
    f"{folder} has no tokenizer.json, so the run has no tokenizer and cannot"
    " generate text"
  ]


def _template(folder) -> list[str]:
  """Returns a line about the folder's chat template, if it has one."""
  template = special_tokens.chat_template_of(folder)
  if template is None:
    return []
  return [
    f"its chat template, in {template.file}, is used by train.chat and"
    " train.serve; --template selects another"
  ]


def _marks(folder, found, spec: str, words) -> list[str]:
  """Returns options for end and start tokens that the file does not specify."""
  if not spec.startswith(("tokenizers:", "sentencepiece:")):
    return []
  marks = []
  ends = special_tokens.ends(folder, found.config, words)
  ends = list(dict.fromkeys([*words.ends, *ends]))
  if tuple(ends) != words.ends:
    marks.append(f"eos={','.join(map(str, ends))}")
  if not spec.startswith("tokenizers:"):
    return marks if len(ends) > 1 else []
  task = found.family.task(found.model, found.config)
  if task["name"] == "language_modeling":
    begin = huggingface.added_before(words.content)
    marks += [] if begin is None else [f"bos={begin}"]
  return marks


def _copy(source: pathlib.Path, target: pathlib.Path, most: int) -> None:
  if os.path.lexists(source):
    try:
      content = bounded_file.read(source, most)
    except ValueError as error:
      raise UserError(str(error)) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def write(
  workdir: str,
  path: str,
  *,
  step: int | str | None = None,
  most: int | None = None,
  say: Callable[[str], None] = print,
) -> None:
  """Exports the model of a workdir as a folder, completely or not at all.

  Args:
    workdir: the run; the variables that its learner evaluates are exported.
    path: the folder to create; it must not exist or be empty.
    step: the step of a checkpoint, or "best"; the last one if None.
    most: the maximum number of bytes per file of weights. If None, the files
      are those of the original folder if the run is a converted one, and have
      at most 5 GB otherwise.
    say: receives lines that describe what was written.

  Raises:
    UserError: there is no such run, or no family supports its model.
  """
  storage.check_local("to", path)
  target = pathlib.Path(path)
  _check_free(target)
  found = trained.load(workdir, step, say)
  arrays = _arrays(found)
  shapes = {key: x.shape for key, x in arrays.items()}
  try:
    family, config, full = weights.writable(_section(found), shapes)
    tensors = list(weights.tensors(family, full, arrays))
  except UserError as error:
    raise UserError(f"{workdir}: {error}") from error
  kept = pathlib.Path(workdir) / KEPT
  original = original_files.kept(kept)
  names = [name for name, *_ in tensors] if original is None else original.names
  ids = {}
  if "vocab_size" in full and not (kept / folder_lib.CONFIG).is_file():
    ids = special_tokens.ids_of(found)
  config, same = _as_it_was(family, config, full, kept, names, shapes)
  if found.step or not same or most is not None:
    original = None
  target.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    prefix=f".{target.name}.", dir=target.parent
  ) as made:
    folder = pathlib.Path(made) / "folder"
    folder.mkdir()
    if original is None:
      files = folder_lib.write(folder, iter(tensors), most or _MOST_PART)
    else:
      made_of = {name: make for name, _, make in tensors}
      copies = family.copies(full)
      files = original_files.restore(original, kept, made_of, copies, folder)
    for name, limit in folder_lib.COMPANIONS.items():
      _copy(kept / name, folder / name, limit)
    file = folder_lib.CONFIG
    if original is None:
      folder_lib.write_json(folder / file, {**config, **ids})
    else:
      _copy(kept / file, folder / file, folder_lib.MOST_CONFIG)
    _words_out(found, folder, say)
    if ids:
      special_tokens.write(found, ids, folder)
    os.replace(folder, target)
  classes = config.get("architectures")
  named = classes[0] if classes else family.architecture(full)
  say(
    f"{mirror.named(path)}: {named} of step {found.step},"
    f" {len(tensors)} tensors in {', '.join(files)}"
  )


def _arrays(found) -> dict[str, np.ndarray]:
  """Returns {path: array} of the evaluated variables, with adapters merged."""
  variables, plain = found.variables, found.parts.model.plain
  tree = {
    "params": plain(variables.params) if plain else variables.params,
    "model_state": variables.model_state,
  }
  return {
    key: np.asarray(jax.device_get(x))
    for key, x in parameter_rules.flat(tree).items()
  }


def _section(found) -> dict[str, Any]:
  """Returns config.model, including the sizes that come from the data."""
  model = dict(found.parts.config["model"])
  takes = family_lib.defaults_of(weights.function(model["name"]))
  sizes = run_data.sizes(found.parts.data)
  return {**{k: v for k, v in sizes.items() if k in takes}, **model}


def _as_it_was(
  family, config, full, kept, names, shapes
) -> tuple[dict[str, Any], bool]:
  """Returns (config.json, whether the original's describes the model)."""
  config["dtype"] = config["torch_dtype"] = full["param_dtype"]
  file = kept / folder_lib.CONFIG
  if not file.is_file():
    return config, False
  before = folder_lib.read_json(file, folder_lib.MOST_CONFIG)
  function = weights.function(family.model)
  try:
    section = family_lib.section_of(family, before, names)
    then = family_lib.complete(family, function, section, shapes)
  except UserError:
    return config, False
  alike = before.get("model_type") == config["model_type"]
  if not alike or not family_lib.same(full, then):
    ids = {k: v for k, v in before.items() if k.endswith("_token_id")}
    return {**ids, **config}, False
  dtypes = dict.fromkeys(("dtype", "torch_dtype"), full["param_dtype"])
  return {**before, **{k: v for k, v in dtypes.items() if k in before}}, True


def _words_out(found, folder, say) -> None:
  """Writes the tokenizer's file if Hugging Face's libraries can read it."""
  words = found.parts.data.tokenizer
  if words is None:
    return
  kind = words.spec.partition(":")[0]
  if kind in ("tokenizers", "wordpiece") and words.content.lstrip()[:1] == b"{":
    (folder / "tokenizer.json").write_bytes(words.content)
  elif kind == "wordpiece":
    (folder / "vocab.txt").write_bytes(words.content)
  elif kind == "sentencepiece":
    name = "spiece.model" if "spiece" in words.spec else "tokenizer.model"
    (folder / name).write_bytes(words.content)
  else:
    say(f"its tokenizer, {words.spec}, is not exported: no common file format")
