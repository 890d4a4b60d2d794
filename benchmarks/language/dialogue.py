r"""A small chat model, trained in three steps: language model, SFT, DPO.

The data is the plays of Tiny Shakespeare, by bytes. A language model learns the
first 90 % of the text (the model of configs/language/lm_shakespeare.py with a
context of 256). configs/text/sft_chat.py continues from its weights with
conversations made from that text: consecutive speeches are the turns of a user
and an assistant. configs/text/dpo_chat.py continues from there with pairs: the
original answer is preferred to the same words in a random order, except the
first and the last word. All figures are for conversations from the last 10 % of
the text, on which nothing was trained:

- nats per byte of the answers, before and after fine-tuning;
- the share of answers sampled at temperature 0.8 that end by themselves within
  150 tokens; and a conversation of three turns, as `python -m train.chat`
  conducts it;
- how often the original answer has the higher reward: before DPO all rewards
  are 0, and a tie counts half.

  python -m input_pipeline.fetch tinyshakespeare
  python benchmarks/language/dialogue.py \
      --text=data/tinyshakespeare/input.txt --out=FOLDER

The results are kept in FOLDER: the data, and the runs lm, sft and dpo, from
which another call continues.
"""

import argparse
import json
import pathlib
import random
import re
import time

# The bytes of four turns, or of two, that fit in a row with their marks.
ROOM = {4: 210, 2: 230}
SPEECH = re.compile(r"^[A-Z][A-Za-z ,']*:\n(.+)", re.S)


def speeches(text: str) -> list[str]:
  """Returns the speeches, in order."""
  found = [SPEECH.match(part.strip()) for part in text.split("\n\n")]
  return [" ".join(m[1].split()) if m else "" for m in found]


def conversations(said: list[str]) -> list[list[dict]]:
  """Returns runs of two or four speeches, each used once."""
  found, i = [], 0

  def fits(size: int) -> bool:
    turns = said[i : i + size]
    whole = len(turns) == size and all(turns)
    return whole and len("".join(turns).encode()) <= ROOM[size]

  while i + 1 < len(said):
    size = next(filter(fits, ROOM), 0)
    if not size:
      i += 1
      continue
    found.append(
      [
        {"role": ("user", "assistant")[n % 2], "content": text}
        for n, text in enumerate(said[i : i + size])
      ]
    )
    i += size
  return found


def pairs(talks: list[list[dict]], seed: int) -> list[dict]:
  """Returns the first answer of each, and its words in a random order.

  The first word and the last stay, since capitals and full stops would give the
  order away.
  """
  rng, found = random.Random(seed), []
  for prompt, answer, *_ in talks:
    words = answer["content"].split()
    middle = rng.sample(words[1:-1], len(words[1:-1]))
    mixed = [*words[:1], *middle, *words[1:][-1:]]
    if mixed != words:
      found.append(
        {
          "prompt": prompt["content"],
          "chosen": answer["content"],
          "rejected": " ".join(mixed),
        }
      )
  return found


def prepare(text: str, out: pathlib.Path) -> dict[str, int]:
  """Writes the data; returns its size."""
  cut = text.index("\n\n", len(text) * 9 // 10)
  counts = {}
  for split, part in (("train", text[:cut]), ("validation", text[cut:])):
    talks = conversations(speeches(part))
    kinds = {
      "conversations": [{"messages": talk} for talk in talks],
      "preferences": pairs(talks, len(split)),
    }
    for kind, records in kinds.items():
      path = out / kind / f"{split}.jsonl"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text("".join(json.dumps(r) + "\n" for r in records))
      counts[f"{kind} {split}"] = len(records)
  return counts


def configs(args, out: pathlib.Path) -> dict:
  """Returns the experiments by their names, in order."""
  from configs.language import lm_shakespeare
  from configs.text import dpo_chat, sft_chat

  lm = lm_shakespeare.get_config()
  lm.total_steps = args.lm_steps
  lm.model.vocab_size = 258  # with ChatML's two tokens, learned later
  lm.data.update(source=f"text:{args.text}", tokenizer="byte", seq_len=256)
  lm.evals = {"val": {"name": "mean", "split": "validation"}}
  sft, dpo = sft_chat.get_config(), dpo_chat.get_config()
  sft.total_steps, sft.init_from = args.sft_steps, str(out / "lm")
  dpo.total_steps, dpo.init_from = args.dpo_steps, str(out / "sft")
  for config, kind in ((sft, "conversations"), (dpo, "preferences")):
    config.data.source = f"jsonl:{out}/{kind}/train.jsonl"
    config.evals.val.source = f"jsonl:{out}/{kind}/validation.jsonl"
  return {"lm": lm, "sft": sft, "dpo": dpo}


def train(config, workdir) -> tuple[dict[int, dict], float]:
  """Returns ({step: its validation figures}, minutes)."""
  from train import build, loop

  start, found = time.monotonic(), {}
  run = build.run(config, workdir and str(workdir))
  for report in loop.fit(run):
    val = {k[4:]: v for k, v in report.scalars.items() if k[:4] == "val/"}
    if val:
      found[report.step] = val
  return found, (time.monotonic() - start) / 60


def before(config) -> dict:
  """Returns the figures before the first step of a run."""
  config = config.copy_and_resolve_references()
  config.total_steps = 0
  return train(config, None)[0][0]


def ended(workdir, prompts: list[list[dict]], most: int = 150) -> float:
  """Returns the share of answers that end by themselves."""
  from input_pipeline.tokenizers.parts import chat_template
  from train import trained
  from train.generation import replies, streaming

  speaker = replies.speaker(trained.load(str(workdir)))
  stops = 0
  for start in range(0, len(prompts), 16):
    some = [
      speaker.chat.prompt(chat_template.messages_of(p))
      for p in prompts[start : start + 16]
    ]
    options = streaming.Options(
      most, temperature=0.8, stop=(speaker.chat.stop,)
    )
    options = [options._replace(seed=start + i) for i in range(len(some))]
    for piece in speaker.write([ids.tolist() for ids in some], options):
      stops += piece.finish == "stop"
  return stops / len(prompts)


def conversation(workdir, said: list[str]) -> None:
  """Prints a conversation."""
  from train import chat, trained
  from train.generation import replies, streaming

  speaker = replies.speaker(trained.load(str(workdir)))
  options = streaming.Options(150, temperature=0.8)
  chat.converse(
    (print(f"> {line}") or line for line in said),
    lambda text: print(text, end=""),
    lambda messages, turn: replies.answer(
      speaker, messages, options._replace(seed=turn)
    ),
    lambda messages: replies.within(speaker, messages, 100),
  )


def main() -> None:
  """Prepares, trains, measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--text", required=True)
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--lm_steps", type=int, default=700)
  parser.add_argument("--sft_steps", type=int, default=300)
  parser.add_argument("--dpo_steps", type=int, default=120)
  args = parser.parse_args()
  from common import cli

  cli.start_jax()
  print(prepare(pathlib.Path(args.text).read_text(), args.out), flush=True)
  runs = configs(args, args.out)
  for name, config in runs.items():
    first = {} if name == "lm" else {0: before(config)}
    found, minutes = train(config, args.out / name)
    for step, figures in {**first, **found}.items():
      told = ", ".join(f"{k} {v:.4f}" for k, v in figures.items())
      print(f"{name} step {step}: {told}", flush=True)
    print(f"{name}: {minutes:.1f} minutes", flush=True)
  path = args.out / "conversations" / "validation.jsonl"
  talks = [json.loads(line)["messages"] for line in path.open()][:96]
  for name in ("sft", "dpo"):
    share = ended(args.out / name, [talk[:1] for talk in talks])
    print(f"{name}: {share:.0%} of {len(talks)} answers end by themselves")
  conversation(args.out / "sft", [talk[0]["content"] for talk in talks[:3]])


if __name__ == "__main__":
  main()
