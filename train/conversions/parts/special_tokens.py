"""Tokens with a meaning: what begins, ends, pads and separates texts.

config.json and generation_config.json give ids, tokenizer_config.json gives
spellings. transformers fills in what a file leaves out with the family's
defaults, which are other tokens in another vocabulary. An exported folder
therefore sets every one of them, to null if there is none.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from input_pipeline.tokenizers import Tokenizer
from input_pipeline.tokenizers.parts import (
  chat_template,
  jinja_template,
  special_tokens,
)
from train.conversions.parts import folder as folder_lib

GENERATION, TOKENIZER = "generation_config.json", "tokenizer_config.json"
# Tokens that end a turn in published chat templates.
_TURN_ENDS = (
  *("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>", "<turn|>"),
  *("<|end|>", "<|endofturn|>", "<|end_of_turn|>", "<|end_of_role|>"),
  *("<|return|>", "<|assistant_end|>", "<|eot|>", "<|END_OF_TURN_TOKEN|>"),
)
# {kind: spellings}; a tokenizer's own bos and eos come first.
_SPELLINGS = {
  "pad": ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"),
  "unk": ("<unk>", "[UNK]", "<|unk|>"),
  "sep": ("[SEP]", "<sep>"),
  "cls": ("[CLS]", "<cls>"),
  "mask": ("[MASK]", "<mask>"),
}


def ends(folder: pathlib.Path, config: Mapping, words: Tokenizer) -> list[int]:
  """Returns every id that ends a text of a folder's model, without repetition.

  They are the eos_token_id of generation_config.json, or of config.json if the
  former gives none, an id or several; the eos_token of tokenizer_config.json;
  and the tokens that end a turn in the chat template.

  Args:
    folder: the folder.
    config: its config.json.
    words: its tokenizer.
  """
  given = completed(folder, config).get("eos_token_id")
  found = list(given) if isinstance(given, list) else [given]
  names = [spelled(_json(folder / TOKENIZER).get("eos_token"))]
  template = chat_template_of(folder)
  if template:
    names += [name for name in _TURN_ENDS if name in template.text]
  found += [special_tokens.piece(words, name) for name in names if name]
  known = [i for i in found if type(i) is int and 0 <= i < words.vocab_size]
  return list(dict.fromkeys(known))


def completed(folder: pathlib.Path, config: Mapping) -> dict[str, Any]:
  """Returns config.json with the ids that generation_config.json gives."""
  generation = _json(folder / GENERATION)
  keys = ("bos_token_id", "eos_token_id", "decoder_start_token_id")
  settings = {k: generation[k] for k in keys if generation.get(k) is not None}
  return {**config, **settings}


def spelled(token: Any) -> str | None:
  """Returns a token of tokenizer_config.json: a text, or {"content": text}."""
  token = token.get("content") if isinstance(token, dict) else token
  return token if isinstance(token, str) else None


def chat_template_of(folder: pathlib.Path) -> jinja_template.Source | None:
  """Returns the chat template of a folder, in Jinja, or None.

  It is in chat_template.jinja, or in tokenizer_config.json: one, or several
  with names, of which "default" is chosen; or in chat_template.json.

  Raises:
    UserError: a file is damaged or too large.
  """
  names = _json(folder / "special_tokens_map.json") | _json(folder / TOKENIZER)
  names = {k: spelled(v) for k, v in names.items() if k.endswith("_token")}
  names = {k: v for k, v in names.items() if v is not None}
  file = folder / "chat_template.jinja"
  if os.path.lexists(file):
    text = folder_lib.read_text(file, folder_lib.MOST_CONFIG)
    return jinja_template.Source(text, names, file.name)
  for name in (TOKENIZER, "chat_template.json"):
    found = _json(folder / name).get("chat_template")
    if isinstance(found, list):
      named = {
        each.get("name"): each.get("template")
        for each in found
        if isinstance(each, dict)
      }
      found = named.get("default")
    if isinstance(found, str) and found.strip():
      return jinja_template.Source(found, names, name)
  return None


def _json(path: pathlib.Path) -> dict[str, Any]:
  if not os.path.lexists(path):
    return {}
  return folder_lib.read_json(path, folder_lib.MOST_CONFIG)


def ids_of(found) -> dict[str, Any]:
  """Returns {"bos_token_id": id or None, …} of a run.

  "eos_token_id" is an id, or a list if several end a text.

  Args:
    found: the trained.Trained of the run.
  """
  words, config = found.parts.data.tokenizer, found.parts.config
  task, rows = config["task"], config["data"].get("rows") or {}
  ids: dict[str, Any] = dict.fromkeys(("bos", "eos", "pad"))
  if words is not None:
    for kind, spellings in _SPELLINGS.items():
      ids[kind] = special_tokens.lookup(words, spellings)
    ids["bos"] = words.bos
    all_ends = list(words.ends)
    if task["name"] == "sequence_to_sequence":
      end = task.get("eos")
      end = special_tokens.end(words) if end is None else end
      all_ends = list(end) if isinstance(end, list | tuple) else [end]
    if rows.get("name") in ("conversations", "preferences"):
      name = rows.get("template", "chatml")
      all_ends.append(chat_template.bind(name, words).stop_id)
    all_ends = [i for i in dict.fromkeys(all_ends) if i is not None]
    ids["eos"] = all_ends[0] if len(all_ends) == 1 else all_ends or None
  if task["name"] == "sequence_to_sequence":
    ids["decoder_start"] = task.get("start", 0)
  # The classes of transformers have defaults for these, which null replaces.
  always = ("bos", "eos", "pad", "decoder_start")
  return {
    f"{kind}_token_id": value
    for kind, value in ids.items()
    if value is not None or kind in always
  }


def write(found, ids: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Writes the ids and spellings that transformers reads beside config.json.

  Args:
    found: the trained.Trained of a run that was not converted.
    ids: from `ids_of`.
    folder: the folder to write; it has a tokenizer.json or not.
  """
  words = found.parts.data.tokenizer
  if (
    found.parts.model.init_cache is not None or "decoder_start_token_id" in ids
  ):
    kinds = ("bos", "eos", "pad", "decoder_start")
    keys = [f"{kind}_token_id" for kind in kinds]
    settings = {key: ids[key] for key in keys if key in ids}
    folder_lib.write_json(folder / GENERATION, settings)
  if words is None or not (folder / "tokenizer.json").is_file():
    return
  names = {}
  for key, value in ids.items():
    first = value[0] if isinstance(value, list) else value
    kind = key.removesuffix("_id")
    if first is not None and kind != "decoder_start_token":
      names[kind] = words.decode([first]).strip()
  config = {**names, "tokenizer_class": "PreTrainedTokenizerFast"}
  config["clean_up_tokenization_spaces"] = False
  if found.parts.model.max_len is not None:
    config["model_max_length"] = found.parts.model.max_len
  folder_lib.write_json(folder / TOKENIZER, config)
  _add_tokens(folder / "tokenizer.json", words)


def _add_tokens(path: pathlib.Path, words: Tokenizer) -> None:
  """Adds the tokens that rows and operations added to the vocabulary."""
  content = json.loads(words.content)
  known = {token["id"] for token in content.get("added_tokens") or []}
  pieces = content["model"].get("vocab")
  taken = len(pieces) if isinstance(pieces, list) else 0
  if isinstance(pieces, dict):
    taken = 1 + max(pieces.values(), default=-1)
  first = max([taken, *(i + 1 for i in known)])
  more = [
    {"id": i, "content": words.decode([i]).strip(), "special": True}
    | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for i in range(first, words.vocab_size)
  ]
  if more:
    content["added_tokens"] = [*(content.get("added_tokens") or []), *more]
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2), "utf-8")
