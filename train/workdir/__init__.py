"""The files of a run: its record, lock, metrics and inspection."""

# Every file and folder of a workdir and its contents;
# docs/reference/workdir.md is generated from this table.
FILES = {
  "config.json": "The complete config of the run, including defaults.",
  "data.json": (
    "The facts about the data that a model needs when it is used without the"
    " data: the shapes of a batch, the number and the names of the classes."
  ),
  "tokenizer.json": "The tokenizer, if it is stored in this format.",
  "tokenizer.model": "The tokenizer, if it is a SentencePiece model.",
  "metrics.jsonl": (
    "One JSON object per logged step and per evaluation. Two runs of the same"
    " config write the same rows, except for keys that depend on time or the"
    " machine."
  ),
  "events.out.tfevents.*": "The same metrics for TensorBoard.",
  "examples.jsonl": (
    "With `log_examples=True`: the examples that each update used."
  ),
  "goodput.jsonl": "How each start of the run spent its time.",
  "skipped.jsonl": "The batches that the run skips, and why.",
  "checkpoints": (
    "One folder per saved step, with the state, its digests and the position"
    " in the data."
  ),
  "frozen": (
    "The arrays that training never changes (a teacher, the reference of DPO,"
    " the base under an adapter, parameters of `optimizer.freeze`), once for"
    " all checkpoints, in a folder that is named by their digest."
  ),
  "damaged": (
    "Checkpoints that failed verification and were moved here; they are not"
    " used."
  ),
  "evaluated.json": (
    "The results of the finished evaluations of the last evaluated step, and"
    " the step of the best checkpoint."
  ),
  "hugging_face": (
    "After `train.convert --from`: files needed to convert the run back."
  ),
  "samples": "Images or texts written by the evaluator `samples`.",
  "profile": "With `--profile`: traces for TensorBoard and XProf.",
  "curves.png": "Every metric over the steps, drawn at the end of the run.",
  "wandb_run_id": "The id of the run at Weights & Biases.",
  "mlflow_run_id": "The id of the run at MLflow.",
  "wandb": "Files of Weights & Biases.",
  "run.lock": (
    "During a run: names the process that writes to the workdir, so that a"
    " second one is refused."
  ),
}
