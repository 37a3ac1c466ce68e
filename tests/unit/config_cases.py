"""A small valid config, and edits that spoil it: (name, text to replace, replacement)."""

from __future__ import annotations

from pathlib import Path

BASE = """\
experiment: demo
models:
  tiny: {path: models/tiny}
engines:
  cpu:
    model: tiny
    environment: cpu
    args:
      dtype: float32
    tuning:
      max_num_seqs: 16
prompts:
  chat:
    path: data/rows.jsonl
    messages:
      - {role: user, content: "{{ question }}"}
    reference: answer
  plain:
    path: data/rows.jsonl
    template: "{{ question }}"
samplings:
  greedy:
    temperature: 0
  warm:
    temperature: 0.7
    n: 4
metrics:
  number:
    type: numeric_match
runs:
  - engine: cpu
    prompts: chat
    sampling: [greedy, warm]
  - engine: cpu
    prompts: plain
    sampling: greedy
report:
  rows: 100
"""

WARM = "    temperature: 0.7\n"
DTYPE = "      dtype: float32\n"
SEQS = "      max_num_seqs: 16\n"
CHAT = '      - {role: user, content: "{{ question }}"}\n'
TEMPLATE = '    template: "{{ question }}"\n'
PLAIN = "    path: data/rows.jsonl\n" + TEMPLATE
RUN = "    sampling: [greedy, warm]\n"
CPU = "    environment: cpu\n"
LAST = "    sampling: greedy\nreport:\n"
ADAPTED = """\
    sampling: greedy
    adapter: fr
adapters:
  fr: {path: models/fr}
report:
"""
RUNS = BASE[BASE.index("runs:") : BASE.index("report:")]
METRIC = "    type: numeric_match\n"
PLAIN = '    path: data/rows.jsonl\n    template: "{{ question }}"\n'
TASK = "    lm_eval_task: gsm8k\n"
ASKS_PLAIN = "    prompts: plain\n    sampling: greedy\n"

EDITS: list[tuple[str, str, str]] = [
    # Unknown keys.
    ("unknown section", "report:", "raport:"),
    ("unknown section far from any", "report:\n  rows: 100", "zzz: 1"),
    ("section in the singular", "models:", "modls:"),
    ("model key", "{path: models/tiny}", "{path: models/tiny, pth: x}"),
    ("engine key", "    environment: cpu\n", "    enviroment: cpu\n"),
    ("arg", DTYPE, "      dtpe: float32\n"),
    ("arg of another kind", DTYPE, DTYPE + "      seed: 1\n"),
    ("tuning in args", DTYPE, DTYPE + "      gpu_memory_utilization: 0.9\n"),
    ("arg in tuning", SEQS, SEQS + "      dtype: float32\n"),
    ("arg beside args", "    environment: cpu\n", "    max_model_len: 64\n"),
    ("tuning beside tuning", "    environment: cpu\n", "    shards: 4\n"),
    ("sampling key in args", DTYPE, DTYPE + "      max_tokens: 4\n"),
    ("tuning key", SEQS, "      max_num_seq: 16\n"),
    ("dummy key", SEQS, SEQS + "    dummy: {latency: 1}\n"),
    ("prompts key", TEMPLATE, '    tempalte: "{{ question }}"\n'),
    ("message key", CHAT, "      - {role: user, content: x, name: y}\n"),
    ("sampling key", WARM, "    temprature: 0.7\n"),
    ("sampling key of another tool", WARM, "    max_new_tokens: 5\n"),
    ("sampling key of an old vLLM", WARM, "    guided_regex: a\n"),
    ("samples by another name", "    n: 4\n", "    num_samples: 4\n"),
    ("do_sample", WARM, "    do_sample: true\n"),
    ("capital letters", WARM, "    Temperature: 0.7\n"),
    ("structured outputs key", WARM, "    structured_outputs: {jsn: {}}\n"),
    ("metric key", METRIC, METRIC + "    tolerence: 1\n"),
    ("metric key of another type", METRIC, METRIC + "    whole_words: true\n"),
    ("run key", RUN, RUN + "    metric: number\n"),
    ("sampling key in a run", RUN, RUN + "    temperature: 1\n"),
    ("section name in a run", RUN, RUN + "    samplings: [greedy]\n"),
    ("report key", "  rows: 100", "  row: 100"),
    ("key with a line break", "report:", '"re\\nport":'),
    # Missing keys.
    ("no experiment", "experiment: demo\n", ""),
    ("no engines model", "    model: tiny\n", ""),
    ("no path and no repo", "{path: models/tiny}", "{}"),
    ("files beside path", "{path: models/tiny}", "{path: models/tiny, files: ['*.json']}"),
    ("code of a branch", "{path: models/tiny}", "{path: models/tiny, code: {a/b: main}}"),
    ("files as text", "{path: models/tiny}", "{repo: a/b, files: '*.json'}"),
    ("no prompts path", "  plain:\n    path: data/rows.jsonl\n", "  plain:\n"),
    ("message without content", CHAT, "      - {role: user}\n"),
    ("message without role", CHAT, "      - {content: x}\n"),
    ("metric without type", METRIC, "    tolerance: 1\n"),
    ("run without engine", "  - engine: cpu\n    prompts: chat\n", "  - prompts: chat\n"),
    ("run without sampling", RUN, ""),
    ("regex_match without extract", METRIC, "    type: regex_match\n"),
    # Wrong types.
    ("experiment number", "experiment: demo", "experiment: 7"),
    ("experiment yes", "experiment: demo", "experiment: yes"),
    ("experiment date", "experiment: demo", "experiment: 2026-01-01"),
    ("experiment null", "experiment: demo", "experiment:"),
    ("experiment list", "experiment: demo", "experiment: [a]"),
    ("models null", "models:\n  tiny: {path: models/tiny}\n", "models:\n"),
    ("models list", "  tiny: {path: models/tiny}", "  - {path: models/tiny}"),
    ("models empty", "models:\n  tiny: {path: models/tiny}\n", "models: {}\n"),
    ("model as a text", "tiny: {path: models/tiny}", "tiny: models/tiny"),
    ("path number", "{path: models/tiny}", "{path: 7}"),
    ("path empty", "{path: models/tiny}", '{path: ""}'),
    ("repo is a URL", "{path: models/tiny}", "{repo: 'https://x.y/a/b', revision: main}"),
    ("revision is a branch", "{path: models/tiny}", "{repo: a/b, revision: main}"),
    ("engines text", "engines:\n  cpu:\n", "engines: cpu\nengine2:\n  cpu:\n"),
    ("engine null", SEQS, SEQS + "  gpu:\n"),
    ("engine model list", "    model: tiny\n", "    model: [tiny]\n"),
    ("backend", "    environment: cpu\n", "    backend: vlm\n"),
    ("environment off", "    environment: cpu\n", "    environment: off\n"),
    ("environment path", "    environment: cpu\n", "    environment: envs/cpu.yaml\n"),
    ("args null", "    args:\n" + DTYPE, "    args:\n"),
    ("args list", "    args:\n" + DTYPE, "    args: [dtype]\n"),
    ("dtype", DTYPE, "      dtype: fp32\n"),
    ("dtype typing error", DTYPE, "      dtype: bloat16\n"),
    ("max_model_len text", DTYPE, "      max_model_len: '64'\n"),
    ("max_model_len zero", DTYPE, "      max_model_len: 0\n"),
    ("max_model_len with k", DTYPE, "      max_model_len: 32k\n"),
    ("max_model_len fraction", DTYPE, "      max_model_len: 64.5\n"),
    ("tensor parallel zero", DTYPE, "      tensor_parallel_size: 0\n"),
    ("enforce_eager number", DTYPE, "      enforce_eager: 1\n"),
    ("enforce_eager quoted", DTYPE, "      enforce_eager: 'yes'\n"),
    ("hf_overrides text", DTYPE, "      hf_overrides: '{}'\n"),
    ("shards zero", SEQS, "      shards: 0\n"),
    ("shards bool", SEQS, "      shards: true\n"),
    ("memory over one", SEQS, "      gpu_memory_utilization: 90\n"),
    ("memory zero", SEQS, "      gpu_memory_utilization: 0\n"),
    ("memory percent", SEQS, "      gpu_memory_utilization: 90%\n"),
    ("random weights", SEQS, "      load_format: dummy\n"),
    ("stall timeout", SEQS, "      stall_timeout_s: 0\n"),
    ("restarts negative", SEQS, "      max_restarts: -1\n"),
    ("latency negative", SEQS, SEQS + "    dummy: {latency_s: -1}\n"),
    ("poison empty", SEQS, SEQS + '    dummy: {poison: ""}\n'),
    (
        "prompts of an unknown format",
        "  plain:\n    path: data/rows.jsonl",
        "  plain:\n    path: rows.xlsx",
    ),
    ("path and dataset", TEMPLATE, TEMPLATE + "    dataset: a/b\n"),
    ("split beside path", TEMPLATE, TEMPLATE + "    split: test\n"),
    ("sample_seed without limit", TEMPLATE, TEMPLATE + "    sample_seed: 1\n"),
    ("filter that is no expression", TEMPLATE, TEMPLATE + "    filter: 'level >'\n"),
    ("reference that is no template", TEMPLATE, TEMPLATE + "    reference: '{{ a |'\n"),
    ("few_shot without count", TEMPLATE, TEMPLATE + "    few_shot: {seed: 1}\n"),
    ("few_shot without template", TEMPLATE, TEMPLATE + "    few_shot: {count: 1}\n"),
    (
        "few_shot in another form",
        TEMPLATE,
        TEMPLATE + "    few_shot: {count: 1, template: x, messages: [{role: user, content: x}]}\n",
    ),
    (
        "few_shot of a split of a file",
        TEMPLATE,
        TEMPLATE + "    few_shot: {count: 1, template: x, split: train}\n",
    ),
    (
        "dataset of a branch",
        "    path: data/rows.jsonl\n    template",
        "    dataset: a/b\n    revision: main\n    template",
    ),
    (
        "files and split",
        "    path: data/rows.jsonl\n    template",
        "    dataset: a/b\n    files: ['*.csv']\n    split: test\n    template",
    ),
    ("template null text", TEMPLATE, "    template: ''\n"),
    ("template list", TEMPLATE, "    template: [a]\n"),
    ("messages mapping", "    messages:\n" + CHAT, "    messages: {role: user, content: a}\n"),
    ("messages empty", "    messages:\n" + CHAT, "    messages: []\n"),
    ("message text", CHAT, "      - hello\n"),
    ("role", CHAT, '      - {role: usr, content: "x"}\n'),
    ("content number", CHAT, "      - {role: user, content: 3}\n"),
    ("limit zero", TEMPLATE, TEMPLATE + "    limit: 0\n"),
    ("limit text", TEMPLATE, TEMPLATE + "    limit: all\n"),
    ("on_too_long", TEMPLATE, TEMPLATE + "    on_too_long: truncate\n"),
    ("reference list", TEMPLATE, TEMPLATE + "    reference: [a]\n"),
    (
        "samplings list",
        "samplings:\n  greedy:\n    temperature: 0\n  warm:\n    temperature: 0.7\n    n: 4\n",
        "samplings:\n  - {temperature: 0}\n",
    ),
    ("sampling null", "  greedy:\n    temperature: 0\n", "  greedy:\n"),
    ("temperature text", WARM, "    temperature: '0.7'\n"),
    ("temperature exponent", WARM, "    temperature: 1e-1\n"),
    ("temperature negative", WARM, "    temperature: -0.5\n"),
    ("temperature high", WARM, "    temperature: 3\n"),
    ("temperature nan", WARM, "    temperature: .nan\n"),
    ("temperature infinite", WARM, "    temperature: .inf\n"),
    ("temperature bool", WARM, "    temperature: on\n"),
    ("temperature null", WARM, "    temperature:\n"),
    ("temperature list", WARM, "    temperature: [0.2, 0.7]\n"),
    ("temperature decimal comma", WARM, "    temperature: 0,7\n"),
    ("top_p zero", WARM, "    top_p: 0\n"),
    ("top_p above one", WARM, "    top_p: 1.1\n"),
    ("top_k", WARM, "    top_k: -2\n"),
    ("top_k fraction", WARM, "    top_k: 2.5\n"),
    ("min_p", WARM, "    min_p: 1.5\n"),
    ("repetition_penalty", WARM, "    repetition_penalty: 0\n"),
    ("presence_penalty", WARM, "    presence_penalty: 2.5\n"),
    ("frequency_penalty", WARM, "    frequency_penalty: -3\n"),
    ("max_tokens zero", WARM, "    max_tokens: 0\n"),
    ("max_tokens null", WARM, "    max_tokens: null\n"),
    ("n zero", "    n: 4\n", "    n: 0\n"),
    ("n large", "    n: 4\n", "    n: 5000\n"),
    ("seed negative", WARM, "    seed: -1\n"),
    ("seed of 64 bits", WARM, "    seed: 9223372036854775808\n"),
    ("seed huge", WARM, "    seed: 1" + "0" * 80 + "\n"),
    ("seed text", WARM, "    seed: abc\n"),
    ("seed fraction", WARM, "    seed: 1.5\n"),
    ("seed null", WARM, "    seed: null\n"),
    ("stop empty", WARM, "    stop: ['']\n"),
    ("stop number", WARM, "    stop: [1]\n"),
    ("stop empty text", WARM, "    stop: ''\n"),
    ("stop_token_ids text", WARM, "    stop_token_ids: ['a']\n"),
    ("stop_token_ids number", WARM, "    stop_token_ids: 2\n"),
    ("stop_token_ids negative", WARM, "    stop_token_ids: [-1]\n"),
    ("bad_words", WARM, "    bad_words: ['']\n"),
    ("logprobs", WARM, "    logprobs: 21\n"),
    ("logprobs true", WARM, "    logprobs: true\n"),
    ("prompt_logprobs", WARM, "    prompt_logprobs: -1\n"),
    ("ignore_eos", WARM, "    ignore_eos: 1\n"),
    ("logit_bias key", WARM, "    logit_bias: {cat: 1}\n"),
    ("logit_bias value", WARM, "    logit_bias: {5: 101}\n"),
    ("allowed_token_ids", WARM, "    allowed_token_ids: []\n"),
    ("structured empty", WARM, "    structured_outputs: {}\n"),
    ("structured two", WARM, "    structured_outputs: {regex: a, choice: [b]}\n"),
    ("structured choice", WARM, "    structured_outputs: {choice: []}\n"),
    ("structured json list", WARM, "    structured_outputs: {json: [a]}\n"),
    ("structured json text", WARM, "    structured_outputs: {json: '{a'}\n"),
    ("structured json of a list", WARM, "    structured_outputs: {json: '[1]'}\n"),
    ("metric type", METRIC, "    type: numeric\n"),
    ("metric type list", METRIC, "    type: [numeric_match]\n"),
    ("metric null", METRIC, ""),
    ("metric text", "  number:\n" + METRIC, "  number: numeric_match\n"),
    ("tolerance", METRIC, METRIC + "    tolerance: -1\n"),
    ("take", METRIC, METRIC + "    take: all\n"),
    ("runs mapping", RUNS, "runs:\n  first: {engine: cpu, prompts: chat, sampling: greedy}\n"),
    ("runs empty", RUNS, "runs: []\n"),
    ("runs null", RUNS, "runs:\n"),
    ("run text", RUN, RUN + "  - cpu\n"),
    ("run sampling empty list", RUN, "    sampling: []\n"),
    ("run sampling number", RUN, "    sampling: 3\n"),
    ("error rate percent", RUN, RUN + "    max_error_rate: 5\n"),
    ("error rate text", RUN, RUN + "    max_error_rate: 5%\n"),
    ("determinism", RUN, RUN + "    determinism: stric\n"),
    ("run name", RUN, RUN + "    name: a b\n"),
    ("rows", "  rows: 100", "  rows: -1"),
    ("rows text", "  rows: 100", "  rows: many"),
    ("rows underscore text", "  rows: 100", "  rows: '1_000'"),
    ("report list", "report:\n  rows: 100", "report: [rows]"),
    ("shards on top", "report:\n  rows: 100", "shards: 0"),
    ("backend on top", "report:\n  rows: 100", "backend: gpu"),
    # Names.
    ("model name with a dot", "tiny: {path", "tiny.1: {path"),
    ("sampling name with a space", "  warm:\n", "  warm up:\n"),
    ("sampling name number", "  warm:\n", "  7:\n"),
    ("sampling name on", "  warm:\n", "  on:\n"),
    ("engine name slash", "engines:\n  cpu:\n", "engines:\n  a/cpu:\n"),
    ("metric name reserved", "  number:\n", "  row:\n"),
    ("experiment with a space", "experiment: demo", "experiment: my demo"),
    ("experiment path", "experiment: demo", "experiment: ../demo"),
    # References.
    ("engine's model", "    model: tiny\n", "    model: tny\n"),
    (
        "run's engine",
        "  - engine: cpu\n    prompts: chat\n",
        "  - engine: gpu\n    prompts: chat\n",
    ),
    ("run's prompts", "    prompts: chat\n", "    prompts: chats\n"),
    ("run's sampling", RUN, "    sampling: gredy\n"),
    ("run's sampling in a list", RUN, "    sampling: [greedy, wrm]\n"),
    ("run's metric", RUN, RUN + "    metrics: [nmber]\n"),
    (
        "metric without reference",
        "    prompts: plain\n",
        "    prompts: plain\n    metrics: number\n",
    ),
    (
        "run twice",
        "    prompts: plain\n    sampling: greedy\n",
        "    prompts: chat\n    sampling: greedy\n",
    ),
    ("sampling twice in a run", RUN, "    sampling: [greedy, greedy]\n"),
    ("name for two", RUN, RUN + "    name: both\n"),
    ("name of another", "    prompts: plain\n", "    prompts: plain\n    name: cpu.chat.warm\n"),
    # Sweeps.
    ("sweep key", RUN, RUN + "    sweep: {temprature: [0, 1]}\n"),
    ("sweep of tuning", RUN, RUN + "    sweep: {max_num_seqs: [1, 2]}\n"),
    ("sweep of names", RUN, RUN + "    sweep: {sampling: [greedy, warm]}\n"),
    ("sweep value", RUN, RUN + "    sweep:\n      top_p:\n        - 0.9\n        - 1.5\n"),
    ("sweep value of the wrong type", RUN, RUN + "    sweep: {dtype: [float8]}\n"),
    ("sweep without a list", RUN, RUN + "    sweep:\n      top_p: 0.9\n"),
    ("sweep without values", RUN, RUN + "    sweep: {top_p: []}\n"),
    ("sweep value twice", RUN, RUN + "    sweep: {top_p: [1, 0.9, 1.0]}\n"),
    ("sweep too long", RUN, RUN + f"    sweep: {{seed: {list(range(9001))}}}\n"),
    ("sweep against vLLM", RUN, RUN + "    sweep: {temperature: [0, 1], n: [2]}\n"),
    ("sweep against a key of the sampling", RUN, RUN + "    sweep: {min_tokens: [1, 300]}\n"),
    (
        "sweep of a template",
        RUN,
        RUN + "    sweep:\n      limit: [1]\n      path: [data/ro.jsonl]\n",
    ),
    (
        "sweep of a name that is taken",
        BASE[BASE.index("  warm:\n") :],
        "  warm+seed_1: {}\n"
        + BASE[BASE.index("  warm:\n") :].replace(RUN, RUN + "    sweep: {seed: [1]}\n"),
    ),
    ("include key", RUN, RUN + "    include: [{temprature: 1}]\n"),
    ("include value", RUN, RUN + "    include:\n      - {top_p: 0.9}\n      - {top_p: 2}\n"),
    ("include of another engine", RUN, RUN + "    include: [{engine: gpu, top_p: 0.9}]\n"),
    ("exclude key", RUN, RUN + "    sweep: {top_p: [0.9, 1]}\n    exclude: [{topp: 1}]\n"),
    ("exclude value", RUN, RUN + "    sweep: {top_p: [0.9, 1]}\n    exclude: [{top_p: 0.8}]\n"),
    ("exclude alone", RUN, RUN + "    exclude: [{top_p: 0.8}]\n"),
    ("exclude everything", RUN, RUN + "    sweep: {top_p: [1]}\n    exclude: [{top_p: 1}]\n"),
    # Rules of vLLM.
    ("nodes that cannot share", SEQS, SEQS + "      nodes: 2\n"),
    (
        "ray on several nodes",
        DTYPE + "    tuning:\n" + SEQS,
        "      tensor_parallel_size: 2\n    tuning:\n"
        "      nodes: 2\n      distributed_executor_backend: ray\n",
    ),
    (
        "a tensor parallel group over two nodes",
        CPU + "    args:\n" + DTYPE + "    tuning:\n" + SEQS,
        "    environment: cu130\n    args:\n"
        "      tensor_parallel_size: 16\n    tuning:\n      nodes: 2\n",
    ),
    (
        "a dummy's GPUs on nodes",
        SEQS,
        SEQS + "      nodes: 2\n    backend: dummy\n    dummy: {gpus: 3}\n",
    ),
    ("chunked prefill on a CPU", SEQS, SEQS + "      enable_chunked_prefill: true\n"),
    (
        "steps shorter than prompts on a CPU",
        DTYPE + "    tuning:\n",
        "      max_model_len: 64\n    tuning:\n      max_num_batched_tokens: 32\n",
    ),
    ("greedy n", "    temperature: 0\n", "    temperature: 0\n    n: 2\n"),
    ("temperature too small", WARM, "    temperature: 0.001\n"),
    ("min_tokens", WARM, "    min_tokens: 300\n"),
    ("min over max", WARM, "    min_tokens: 9\n    max_tokens: 8\n"),
    # Files and templates.
    ("model folder", "models/tiny", "models/tini"),
    ("model folder's parent", "models/tiny", "modelz/tiny"),
    ("model folder far", "models/tiny", "elsewhere/a/b"),
    ("model is a file", "models/tiny", "models/tiny/config.json"),
    ("model without config", "models/tiny", "data"),
    ("model without weights", "models/tiny", "models/bare"),
    ("model with pickled weights", "models/tiny", "models/pickled"),
    ("data file", "  plain:\n    path: data/rows", "  plain:\n    path: data/row"),
    ("data folder", "  plain:\n    path: data/rows", "  plain:\n    path: data/folder"),
    ("adapter nobody has", RUN, RUN + "    adapter: fr\n"),
    ("adapter misspelt", LAST, ADAPTED.replace(": fr\n", ": [none, fx]\n")),
    ("adapter called none", LAST, ADAPTED.replace("fr:", "none:")),
    ("adapter without path", LAST, ADAPTED.replace("path: models/fr", "")),
    ("adapter key", LAST, ADAPTED.replace("s/fr", "s/fr, rank: 8")),
    ("adapter as text", LAST, ADAPTED.replace("{path: models/fr}", "models/fr")),
    ("adapter folder", LAST, ADAPTED.replace("s/fr", "s/rf")),
    ("adapter is a file", LAST, ADAPTED.replace("s/fr", "s/tiny/config.json")),
    ("adapter without settings", LAST, ADAPTED.replace("s/fr", "s/tiny")),
    ("adapter twice", LAST, ADAPTED.replace(": fr\n", ": [fr, fr]\n")),
    ("adapters in an engine", CPU, CPU + "    adapters: [fr]\n"),
    ("adapter in an engine", CPU, CPU + "    adapter: fr\n"),
    (
        "path and repo",
        "{path: models/tiny}",
        f"{{path: models/tiny, repo: a/b, revision: {'a' * 40}}}",
    ),
    ("path and revision", "{path: models/tiny}", f"{{path: models/tiny, revision: {'a' * 40}}}"),
    ("template and messages", TEMPLATE, TEMPLATE + "    messages: [{role: user, content: a}]\n"),
    ("template and chat arguments", TEMPLATE, TEMPLATE + "    chat_template_kwargs: {a: 1}\n"),
    ("template syntax", TEMPLATE, '    template: "{{ question }"\n'),
    ("template end", TEMPLATE, '    template: "{% if x %}"\n'),
    ("template block line", TEMPLATE, "    template: |\n      one\n      {{ two\n      three\n"),
    ("template filter", TEMPLATE, '    template: "{{ question | uper }}"\n'),
    ("template random", TEMPLATE, '    template: "{{ question | random }}"\n'),
    ("template include", TEMPLATE, "    template: \"{% include 'x' %}\"\n"),
    ("message syntax", CHAT, '      - {role: user, content: "{{ }}"}\n'),
    ("extract", METRIC, METRIC + "    extract: '(a'\n"),
    # Judges.
    ("path and from_run", TEMPLATE, TEMPLATE + "    from_run: cpu.chat.warm\n"),
    ("judge of no run", PLAIN, "    from_run: cpu.chat.wrm\n" + TEMPLATE),
    ("judge without a template", PLAIN, "    from_run: cpu.chat.warm\n"),
    ("judge of itself", PLAIN, "    from_run: cpu.plain.greedy\n" + TEMPLATE),
    (
        "judges in a circle",
        BASE,
        BASE.replace(PLAIN, "    from_run: cpu.chat.warm\n" + TEMPLATE).replace(
            "  chat:\n    path: data/rows.jsonl\n", "  chat:\n    from_run: cpu.plain.greedy\n"
        ),
    ),
    ("duel of one", PLAIN, "    from_runs: [cpu.chat.warm]\n" + TEMPLATE),
    (
        "duel with itself",
        PLAIN,
        "    from_runs: [cpu.chat.warm, cpu.chat.warm]\n" + TEMPLATE,
    ),
    # Gates.
    (
        "gate of no run",
        "report:",
        "gates: [{run: cpu.chat.wrm, metric: number, at_least: 0.5}]\nreport:",
    ),
    (
        "gate of no metric",
        "report:",
        "gates: [{run: cpu.chat.warm, metric: nmber, at_least: 1}]\nreport:",
    ),
    (
        "gate of a run without metrics",
        "report:",
        "gates:\n  - {run: cpu.plain.greedy, metric: number, at_least: 1}\nreport:",
    ),
    ("gate without a limit", "report:", "gates: [{run: cpu.chat.warm, metric: number}]\nreport:"),
    (
        "gate with two limits",
        "report:",
        "gates:\n  - {run: cpu.chat.warm, metric: number, at_least: 1, at_most: 2}\nreport:",
    ),
    (
        "margin without a baseline",
        "report:",
        "gates:\n  - {run: cpu.chat.warm, metric: number, at_least: 1, margin: 0.1}\nreport:",
    ),
    (
        "gate against itself",
        "report:",
        "gates:\n  - {run: cpu.chat.warm, metric: number, baseline: cpu.chat.warm}\nreport:",
    ),
    ("margin in percent", "report:", "gates: [{run: a, metric: b, margin: 1%}]\nreport:"),
    ("baseline of no run", "report:", "comparisons: {baseline: warm}\nreport:"),
    ("no correction", "report:", "comparisons: {correction: bonferroni}\nreport:"),
    ("code without leave", METRIC, "    type: code\n"),
    ("not a JSON Schema", METRIC, "    type: json_schema\n    schema: {type: objekt}\n"),
    ("no metric file", METRIC, "    type: python\n    path: data/mine.py\n"),
    ("metric file without the function", METRIC, "    type: python\n    path: data/none.py\n"),
    ("metric file with a mistake", METRIC, "    type: python\n    path: data/wrong.py\n"),
    ("metric setting of another kind", METRIC, "    type: length\n    unit: tokens\n"),
    ("wheelhouse that is not there", "report:", "wheelhouse: nowhere\nreport:"),
    ("environment key", "prompts:", "environments:\n  own: {pyton: /bin/python}\nprompts:"),
    ("environment auto", "prompts:", "environments:\n  auto: {python: /bin/sh}\nprompts:"),
    ("environment of no kind", "prompts:", "environments:\n  cpux: {}\nprompts:"),
    ("environment conda text", "prompts:", "environments:\n  cpu: {conda: no-thanks}\nprompts:"),
    (
        "environment of two kinds",
        "prompts:",
        "environments:\n  own: {python: /bin/python, file: own.yaml}\nprompts:",
    ),
    (
        "environment without its file",
        "cpu\n    args:\n      dtype: float32\n    tuning:\n      max_num_seqs: 16\n",
        "own\nenvironments:\n  own: {file: own.yaml}\n",
    ),
    # Tasks of lm-evaluation-harness.
    ("task and path", TEMPLATE, TASK),
    ("task and template", PLAIN, TASK + TEMPLATE),
    ("task key of a file", TEMPLATE, TEMPLATE + "    num_fewshot: 5\n"),
    ("task without a file", PLAIN, "    lm_eval_task: data/none.yaml\n"),
    ("task that is no task", PLAIN, "    lm_eval_task: data/rows.yaml\n"),
    ("task whose data is missing", PLAIN, "    lm_eval_task: data/task.yaml\n"),
    ("task of a branch", PLAIN, TASK + "    dataset_revisions: {a/b: main}\n"),
    ("task with a template's variables", PLAIN, TASK + "    chat_template_kwargs: {a: 1}\n"),
    ("task under a sampling", PLAIN, TASK),
    ("file under a task's sampling", ASKS_PLAIN, "    prompts: plain\n    sampling: task\n"),
    ("sampling of that name", "  warm:\n", "  task: {}\n  warm:\n"),
    # YAML.
    ("key twice", WARM, WARM + "    temperature: 0.8\n"),
    ("section twice", "report:", "models:\n  tiny: {path: models/tiny}\nreport:"),
    ("half surrogate", TEMPLATE, '    template: "\\uD800"\n'),
    ("binary", TEMPLATE, "    template: !!binary aGVsbG8=\n"),
    ("set", RUN, "    sampling: !!set {greedy, warm}\n"),
    ("loop", "report:\n  rows: 100", "report: &loop\n  title: *loop"),
]


def make_project(folder: Path) -> None:
    """Make the files that the valid config names, and a few beside them."""
    (folder / "models" / "tiny").mkdir(parents=True)
    (folder / "models" / "tiny" / "config.json").write_text("{}")
    (folder / "models" / "tiny" / "model.safetensors").touch()
    for name in ("bare", "pickled"):
        (folder / "models" / name).mkdir()
        (folder / "models" / name / "config.json").write_text("{}")
    (folder / "models" / "pickled" / "pytorch_model.bin").touch()
    (folder / "models" / "fr").mkdir()
    (folder / "models" / "fr" / "adapter_config.json").write_text("{}")
    (folder / "data" / "folder.jsonl").mkdir(parents=True)
    row = '{"id": "a", "question": "1+1", "reference": "2", "answer": "2"}'
    (folder / "data" / "rows.jsonl").write_text(row)
    (folder / "data" / "asked.jsonl").write_text('{"prompt": "1+1", "id": "a", "reference": "2"}')
    (folder / "data" / "none.py").write_text("def other(): ...\n")
    (folder / "data" / "wrong.py").write_text("import os\ndef score(:\n")
    (folder / "data" / "rows.yaml").write_text("- a\n- b\n")
    data = "dataset_kwargs: {data_files: {test: data/none.jsonl}}\n"
    (folder / "data" / "task.yaml").write_text(f"task: own\n{data}")
    (folder / "config.yaml").write_text(BASE)
