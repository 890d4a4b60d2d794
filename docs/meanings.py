"""What the reference says of names that have no docstring of their own."""

CONFIG = {
  "total_steps": "Number of updates in the whole run.",
  "batch_size": (
    "Examples in a global batch, over all devices and hosts; `all` takes the"
    " whole split as every batch."
  ),
  "task": (
    "What is learned: `name` is a file of `train/tasks`, `wrap` a list of"
    " [wrappers](wrappers.md)."
  ),
  "model": "The network: `name` is a file of `models`.",
  "learner": (
    "How it is learned: `name` is a file of `train/learners`, `wrap` a list of"
    " [wrappers](wrappers.md)."
  ),
  "optimizer": (
    "See [below](#configoptimizer); `wrap` is a list of"
    " [wrappers](wrappers.md)."
  ),
  "data": "See [below](#configdata).",
  "seed": "Seeds the parameters, the order of the data and all other draws.",
  "log_every_steps": "Steps between two rows of `metrics.jsonl`.",
  "log_examples": (
    "Writes to `examples.jsonl` which examples each update was computed from."
  ),
  "evals": (
    "One entry per evaluator. `name` is a file of `train/evaluators`,"
    " `every_steps` the interval (0: only at the end); keys of `data`, such as"
    " `split`, replace those of `config.data`; the other keys are the"
    " evaluator's. Figures are called `<entry>/<metric>`."
  ),
  "init_from": (
    "A workdir or a Hugging Face folder or file whose parameters the run"
    " begins with, or a [section](#configinit_from)."
  ),
  "planned": (
    "Facts about the data for `train.plan`, which reads no data: `num_classes`;"
    " `source`, a `fake:` source with the fields of data that is neither images"
    " nor text; `sizes`, what else a model takes from its data, such as"
    " `dict(entities=135, relations=46)`."
  ),
  "adapt": "An adapter around the model: `name` is a file of `train/adapters`.",
  "checkpoint": "See [below](#configcheckpoint).",
  "recovery": "See [below](#configrecovery).",
  "early_stopping": (
    "Ends the run when a figure of an evaluator stops improving; see"
    " [below](#configearly_stopping)."
  ),
  "progressive": (
    "Smaller images in the first parts of the training; see"
    " [below](#configprogressive)."
  ),
  "multi_scale": (
    "Images of another size in each batch of the training; see"
    " [below](#configmulti_scale)."
  ),
  "writers": (
    "Where metrics go besides `metrics.jsonl`: a list of sections, whose `name`"
    " is a file of `train/writers`."
  ),
  "mesh": "See [below](#configmesh).",
  "sharding": (
    "Rules `(regex, placement)`; the first regex found in a parameter's path"
    ' decides. Placements: `"model"`, which cuts by the axes tensor, expert and'
    ' stage; `"fsdp"`, which also cuts the largest remaining dimension over'
    ' fsdp; `"replicate"`; or a list of axes.'
  ),
}

# title, file, function, arguments that are not keys of the config
SECTIONS = (
  (
    "`config.data`",
    "input_pipeline/batching/pipeline.py",
    "train",
    (
      "batch_size",
      "seed",
      "host_index",
      "host_count",
      "workdir",
      "multiple_of",
    ),
  ),
  (
    "`config.optimizer`",
    "train/optimization/optimizers.py",
    "build",
    ("total_steps",),
  ),
  (
    "`config.checkpoint`",
    "train/checkpointing/retention.py",
    "Settings",
    (),
  ),
  (
    "`config.early_stopping`",
    "train/checkpointing/tracking.py",
    "early_stopping",
    (),
  ),
  ("`config.recovery`", "train/checkpointing/health.py", "limits", ()),
  (
    "`config.progressive`",
    "input_pipeline/batching/progressive_sizes.py",
    "progressive_sizes",
    ("data", "total_steps"),
  ),
  (
    "`config.multi_scale`",
    "input_pipeline/batching/multi_scale.py",
    "multi_scale",
    ("data", "seed"),
  ),
  ("`config.init_from`", "train/initialization.py", "Settings", ()),
)

AXES = {
  "slice": (
    "The batch over slices that a slower network joins, or the workers of the"
    " learner `diloco`."
  ),
  "stage": "Layers, as pipeline stages; see `model.stage_microbatches`.",
  "data": "The batch.",
  "fsdp": "The batch, and parameters, gradients and optimizer state (ZeRO-3).",
  "expert": "Experts, and the batch.",
  "context": "Time, by ring attention.",
  "tensor": "Heads, hidden units and the vocabulary (Megatron).",
}

# code -> (meaning, what to do)
EXIT_CODES = {
  0: ("The run is complete.", ""),
  1: (
    "The run failed, for example because a metric is not finite; or an"
    " inspecting verb found a fault.",
    "Read the last line.",
  ),
  2: ("Bad arguments or data.", "Correct what the line names."),
  3: (
    "`input_pipeline.judge`: a check that `--fail_on` names did not pass.",
    "Read report.html.",
  ),
  70: (
    "The hardware computed two results from one state (`--check_determinism`).",
    "Replace the machine; the same command resumes elsewhere.",
  ),
  74: (
    "A checkpoint cannot be written, the last one cannot be read back, or none"
    " of a run's checkpoints is intact.",
    "Make room, restore access or restore a copy of a checkpoint, then run the"
    " same command.",
  ),
  75: (
    "Another process of the run was lost, or no step was done for"
    " `--stall_timeout` seconds.",
    "Run the same command.",
  ),
  85: (
    "The run was asked to stop (SIGTERM, a maintenance or preemption notice)"
    " and has saved.",
    "Run the same command to resume.",
  ),
  130: ("Ctrl-C; the run has saved.", "Run the same command to resume."),
}

METRICS = {
  "examples_per_second": (
    "Of training alone, without evaluating, saving and compiling."
  ),
  "tokens_per_second": "The same in tokens, where examples are rows of tokens.",
  "step_seconds": "Mean time of a step since the last row.",
  "data_wait": (
    "Share of the training time in which the devices had no batch to work on."
  ),
  "mfu": (
    "Model FLOPs utilization: model FLOPs of a step / (`step_seconds` × devices"
    " × peak FLOP/s of the compute dtype). A causal triangle of attention"
    " counts as half of its square, recomputation by remat is not counted."
    " Absent on an unknown device without `--peak_flops`."
  ),
  "compile_seconds": "Time spent compiling since the last row.",
  "cache_hits": "Programs found in the persistent compilation cache.",
  "cache_misses": "Programs compiled and put into that cache.",
  "host_memory_bytes": (
    "Peak memory of this process on its host (resident set size)."
  ),
  "device_memory_bytes": (
    "Peak memory of one device, where the platform reports it."
  ),
  "energy_kwh": "Energy of the devices, from their counters (NVIDIA).",
  "energy_kwh_estimated": (
    "Their greatest power, or `--watts`, × time, where there are no counters."
  ),
  "goodput": (
    "Share of wall time, over all starts of the workdir, spent in steps that"
    " were kept."
  ),
  "badput_start": "Share of wall time spent before the loop began.",
  "badput_compile": "… compiling.",
  "badput_restore": "… restoring a checkpoint.",
  "badput_data": "… waiting for a batch while the devices were idle.",
  "badput_evaluation": "… evaluating.",
  "badput_save": "… saving.",
  "badput_report": "… writing and showing figures.",
  "badput_lost": (
    "… in steps after the save that a killed run resumed from, which were done"
    " again."
  ),
  "badput_down": "… between the end of one start and the next.",
}
