"""The files of a run: its record, its lock, its metrics, its inspection."""

# Every file and folder that a run leaves in its workdir, and what it holds;
# docs/reference/workdir.md is written from this table.
FILES = {
  "config.json": "The complete config of the run, its defaults filled in.",
  "data.json": (
    "What a model must know of the data to be used without it: the shapes of a"
    " batch, the number of classes, the tokenizer."
  ),
  "tokenizer.json": "The tokenizer, where it has a file of this format.",
  "tokenizer.model": "The tokenizer, where it is SentencePiece's.",
  "metrics.jsonl": (
    "One JSON object per logged step and per evaluation. Two runs of one"
    " config write the same rows, except for the keys that describe time and"
    " machine."
  ),
  "events.out.tfevents.*": "The same figures for TensorBoard.",
  "examples.jsonl": (
    "With `log_examples=True`: which examples each update was computed from."
  ),
  "goodput.jsonl": "What the time of each start of the run was spent on.",
  "skipped.jsonl": "Which batches the run passes over, and why.",
  "checkpoints": (
    "One folder per saved step, which holds the state, its digests and the"
    " position in the data."
  ),
  "damaged": (
    "Checkpoints that failed verification and were set aside; nothing reads"
    " them."
  ),
  "evaluated.json": (
    "Which evaluations of the last evaluated step are done, with their figures,"
    " and the step of the best checkpoint."
  ),
  "hugging_face": (
    "After `train.convert --from`: files that a folder written back needs."
  ),
  "samples": "Images or texts that the evaluator `samples` writes.",
  "profile": "With `--profile`: traces for TensorBoard and XProf.",
  "curves.png": "Every metric over the steps, drawn at the end of the run.",
  "wandb_run_id": "The run of `config.writers` at Weights & Biases.",
  "mlflow_run_id": "The run of `config.writers` at MLflow.",
  "wandb": "Files of Weights & Biases.",
  "run.lock": (
    "While a run lasts: names the process that writes to the workdir, so that a"
    " second one is refused."
  ),
}
