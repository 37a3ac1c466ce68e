// One row: its prompt, its reference and every sample of one run or of two beside each other.

const SAMPLES_AT_ONCE = 32;
const REASONS = { s: "stop", l: "length", e: "error", "?": "unknown" };

class Detail {
  constructor(element, rows, step) {
    Object.assign(this, { element, rows, step });
  }

  /** Show `row` under the choices made in the tools. */
  show(row, choices, position) {
    const { element, rows } = this;
    element.replaceChildren();
    element.scrollTop = 0;
    if (row === null) {
      element.append(make("p", "nothing", "No row passes this search and filter."));
      return;
    }
    const a = rows.runs[choices.a];
    const b = choices.b === null ? null : rows.runs[choices.b];
    const place = a.places[row];
    const query = choices.query.toLowerCase();
    element.append(this.head(row, position));
    const same = !b || a.prompt[place] === b.prompt[b.places[row]];
    this.appendPrompt(a, place, query, same ? "" : a.label);
    if (!same) this.appendPrompt(b, b.places[row], query, b.label);
    const reference = rows.text(a.reference[place]);
    this.block("reference", reference ?? "–", query);
    this.appendAnswers(a, b, row, choices, query);
  }

  head(row, position) {
    const head = make("div", "head");
    const title = make("h3");
    const name = make("bdi");
    appendText(name, this.rows.id(row));
    title.append(name, make("span", "muted", `  line ${this.rows.data.lines[row]}`));
    const pager = make("div", "pager");
    for (const [label, by, off] of [["‹", -1, position.first], ["›", 1, position.last]]) {
      const button = make("button", "", label);
      button.type = "button";
      button.disabled = off;
      button.setAttribute("aria-label", by < 0 ? "previous row" : "next row");
      button.addEventListener("click", () => this.step(by));
      pager.append(button);
    }
    head.append(title, pager);
    return head;
  }

  block(label, text, query, parent = this.element) {
    const block = make("div", "block");
    block.append(make("p", "label", label), this.pre(text, query));
    parent.append(block);
    return block;
  }

  pre(text, query) {
    const pre = make("pre");
    pre.dir = "auto";
    appendMarked(pre, text, query);
    return pre;
  }

  appendPrompt(run, place, query, whose) {
    const prompt = this.rows.text(run.prompt[place]);
    const rendered = this.rows.text(run.rendered[place]);
    const label = whose ? `prompt of ${whose}` : "prompt";
    const messages = run.chat || rendered !== null ? readMessages(prompt) : null;
    if (messages) {
      const block = make("div", "block");
      block.append(make("p", "label", label));
      for (const message of messages) {
        block.append(make("span", "message-role", message.role), this.pre(message.content, query));
      }
      this.element.append(block);
    } else this.block(label, prompt ?? "–", query);
    if (rendered !== null) {
      const details = make("details");
      details.append(make("summary", "", "as sent, after the chat template"), this.pre(rendered, ""));
      this.element.append(details);
    }
  }

  appendAnswers(a, b, row, choices, query) {
    const answers = this.element.appendChild(make("div", "answers"));
    const [start, end] = a.samples(a.places[row]);
    const [otherStart, otherEnd] = b ? b.samples(b.places[row]) : [0, 0];
    const total = Math.max(end - start, otherEnd - otherStart);
    const append = (from, to) => {
      for (let i = from; i < to; i++) {
        const left = start + i < end ? start + i : null;
        const right = b && otherStart + i < otherEnd ? otherStart + i : null;
        answers.append(this.pair(a, left, b, right, choices.metric, query));
      }
    };
    append(0, Math.min(total, SAMPLES_AT_ONCE));
    if (total <= SAMPLES_AT_ONCE) return;
    const more = make("button", "more", `Show the other ${total - SAMPLES_AT_ONCE} samples`);
    more.type = "button";
    more.addEventListener("click", () => {
      more.remove();
      append(SAMPLES_AT_ONCE, total);
    });
    this.element.append(more);
  }

  pair(a, left, b, right, metric, query) {
    const pair = make("div", b ? "pair two" : "pair");
    const texts = [
      left === null ? null : this.rows.text(a.text[left]),
      right === null ? null : this.rows.text(b.text[right]),
    ];
    const changed = texts[0] !== null && texts[1] !== null ? difference(...texts) : [null, null];
    pair.append(this.answer(a, left, metric, query, changed[0], "out", b !== null));
    if (b) pair.append(this.answer(b, right, metric, query, changed[1], "in", true));
    return pair;
  }

  answer(run, i, metric, query, stretches, side, named) {
    const answer = make("div", "answer");
    if (i === null) {
      answer.append(make("p", "label", `${run.label}: no such sample`));
      return answer;
    }
    const score = run.scores[metric]?.score[i] ?? null;
    const failed = run.finish[i] === "e";
    answer.classList.add(failed ? "is-error" : score === null ? "is-open" : score === 1 ? "is-right" : "is-wrong");
    answer.append(this.answerLabel(run, i, score, named));
    const text = this.rows.text(run.text[i]);
    if (failed) answer.append(this.pre(this.rows.text(run.error[i]) ?? "error", query));
    else if (!text) answer.append(make("pre", "empty", "empty"));
    else {
      const pre = make("pre");
      pre.dir = "auto";
      if (stretches && stretches.some(([same]) => !same)) appendDifference(pre, stretches, side);
      else appendMarked(pre, text, query);
      answer.append(pre);
    }
    this.appendNotes(answer, run, i, metric);
    return answer;
  }

  answerLabel(run, i, score, named) {
    const label = make("p", "label");
    if (named) label.append(make("strong", "", run.label));
    label.append(make("span", "", `sample ${run.sample[i]}`));
    if (run.finish[i] === "e") label.append(make("span", "verdict error", "! error"));
    else if (score !== null) {
      const words = score === 1 ? "✓ right" : score === 0 ? "✗ wrong" : `score ${score}`;
      label.append(make("span", `verdict ${score === 1 ? "right" : "wrong"}`, words));
    }
    if (run.finish[i] !== "e") {
      const tokens = run.tokens[i];
      label.append(make("span", "", `${tokens} token${tokens === 1 ? "" : "s"}`));
      const cut = run.finish[i] === "l";
      label.append(make("span", cut ? "some" : "", cut ? "… truncated at max_tokens" : REASONS[run.finish[i]]));
    }
    return label;
  }

  appendNotes(answer, run, i, metric) {
    const whole = run.cut[i];
    if (whole) {
      const text = `The first part of ${whole.toLocaleString("en")} characters; all in completions.parquet.`;
      answer.append(make("p", "taken", text));
    }
    const taken = this.rows.text(run.scores[metric]?.extracted[i] ?? NOTHING);
    if (taken === null || taken === this.rows.text(run.text[i])) return;
    const note = make("p", "taken", "taken as the answer: ");
    const shown = make("bdi");
    appendText(shown, taken);
    note.append(shown);
    answer.append(note);
  }
}

/** Return the messages of a chat prompt, or null if the text is not a list of such. */
function readMessages(text) {
  if (!text || !text.startsWith("[")) return null;
  try {
    const messages = JSON.parse(text);
    const fits = messages.every((message) => typeof message.role === "string");
    if (!fits) return null;
    return messages.map(({ role, content }) => ({
      role,
      content: typeof content === "string" ? content : JSON.stringify(content, null, 1) ?? "",
    }));
  } catch {
    return null;
  }
}

/** Return a short form of a prompt for the list: what the user said last. */
function promptLine(text) {
  const messages = readMessages(text);
  const line = messages ? messages.at(-1)?.content ?? "" : text ?? "–";
  return line.slice(0, 160).replace(/\s+/g, " ");
}
