// The rows of the page: columns of numbers over one list of texts, and questions to them.

const NOTHING = -1;

class Rows {
  constructor(data) {
    this.data = data;
    this.count = data.ids.length;
    this.runs = data.runs.map((run) => new RunRows(run, this.count));
    this.lower = null;
  }

  text(index) {
    return index === NOTHING ? null : this.data.strings[index];
  }

  id(row) {
    return this.text(this.data.ids[row]);
  }

  find(id, run) {
    const wanted = this.data.strings.indexOf(id);
    const places = this.runs[run].places;
    return this.data.ids.findIndex((index, row) => index === wanted && places[row] !== NOTHING);
  }

  /** Prepare the search: lower-case copies of all texts, made once. */
  prepare() {
    this.lower ??= this.data.strings.map((text) => text.toLowerCase());
  }

  /** Return for each text whether it holds `query`. */
  hits(query) {
    this.prepare();
    const found = new Uint8Array(this.lower.length);
    for (let i = 0; i < found.length; i++) if (this.lower[i].includes(query)) found[i] = 1;
    return found;
  }

  /** Return the rows of run `a` that pass, and how many pass each filter. */
  filter({ a, b, metric, query, show }) {
    const first = this.runs[a];
    const second = b === null ? null : this.runs[b];
    const flags = first.flags(metric);
    const others = second?.flags(metric);
    const hits = query ? this.hits(query.toLowerCase()) : null;
    const counts = {};
    const rows = [];
    for (let place = 0; place < first.size; place++) {
      const row = first.rows[place];
      const beside = second ? second.places[row] : NOTHING;
      if (second && beside === NOTHING) continue;
      if (hits && !hits[this.data.ids[row]] && !first.has(hits, place) &&
          !(second && second.has(hits, beside))) continue;
      let flag = flags[place];
      if (second) {
        if (((flag ^ others[beside]) & (SCORED_RIGHT | SCORED_WRONG)) !== 0) flag |= SCORES_DIFFER;
        if (!first.sameTexts(place, second, beside)) flag |= TEXTS_DIFFER;
      }
      for (const filter of FILTERS) {
        if (filter.flag && !(flag & filter.flag)) continue;
        counts[filter.key] = (counts[filter.key] ?? 0) + 1;
        if (filter.key === show) rows.push(row);
      }
    }
    return { rows, counts };
  }
}

const SCORED_WRONG = 1, ALL_WRONG = 2, TRUNCATED = 4, FAILED = 8, SCORED_RIGHT = 16;
const SCORES_DIFFER = 32, TEXTS_DIFFER = 64;

const FILTERS = [
  { key: "all", label: "All", flag: 0 },
  { key: "wrong", label: "Wrong", flag: SCORED_WRONG, scored: true,
    title: "at least one sample scored below 1" },
  { key: "never", label: "Never right", flag: ALL_WRONG, scored: true,
    title: "no sample scored 1" },
  { key: "truncated", label: "Truncated", flag: TRUNCATED,
    title: "at least one sample ended at max_tokens" },
  { key: "error", label: "Error", flag: FAILED, title: "at least one sample is an error" },
  { key: "scores", label: "Scores differ", flag: SCORES_DIFFER, scored: true, pair: true,
    title: "right and wrong are not the same in both runs" },
  { key: "texts", label: "Texts differ", flag: TEXTS_DIFFER, pair: true,
    title: "the samples of the two runs are not the same texts" },
];

class RunRows {
  constructor(run, count) {
    Object.assign(this, run);
    this.size = run.rows.length;
    this.places = new Int32Array(count).fill(NOTHING);
    run.rows.forEach((row, place) => (this.places[row] = place));
    this.known = new Map();
  }

  samples(place) {
    return [this.start[place], this.start[place + 1]];
  }

  has(hits, place) {
    const { prompt, reference, text, error } = this;
    if (hits[prompt[place]] || hits[reference[place]]) return true;
    for (let i = this.start[place]; i < this.start[place + 1]; i++) {
      if (hits[text[i]] || hits[error[i]]) return true;
    }
    return false;
  }

  sameTexts(place, other, beside) {
    const [start, end] = this.samples(place);
    const [otherStart, otherEnd] = other.samples(beside);
    if (end - start !== otherEnd - otherStart) return false;
    for (let i = 0; i < end - start; i++) {
      if (this.text[start + i] !== other.text[otherStart + i]) return false;
    }
    return true;
  }

  /** Return what is true of each row, as bits; worked out once for each metric. */
  flags(metric) {
    if (!this.known.has(metric)) this.known.set(metric, this.readFlags(metric));
    return this.known.get(metric);
  }

  readFlags(metric) {
    const scores = this.scores[metric]?.score;
    const flags = new Uint8Array(this.size);
    for (let place = 0; place < this.size; place++) {
      let flag = 0;
      for (let i = this.start[place]; i < this.start[place + 1]; i++) {
        if (this.finish[i] === "l") flag |= TRUNCATED;
        if (this.finish[i] === "e") flag |= FAILED;
        const score = scores?.[i] ?? null;
        if (score !== null) flag |= score < 1 ? SCORED_WRONG : SCORED_RIGHT;
      }
      if (flag & SCORED_WRONG && !(flag & SCORED_RIGHT)) flag |= ALL_WRONG;
      flags[place] = flag;
    }
    return flags;
  }

  /** Return how a row did, in words and as a class. */
  verdict(place, metric) {
    const [start, end] = this.samples(place);
    const samples = end - start;
    let [errors, right, scored] = [0, 0, 0];
    for (let i = start; i < end; i++) {
      if (this.finish[i] === "e") errors++;
      const score = this.scores[metric]?.score[i] ?? null;
      if (score !== null) scored++;
      if (score === 1) right++;
    }
    if (errors === samples) return ["! error", "error"];
    if (scored === 0) return [errors ? `! ${errors} of ${samples} errors` : "", "error"];
    if (samples === 1) return right ? ["✓ right", "right"] : ["✗ wrong", "wrong"];
    if (right === scored) return [`✓ ${right} of ${samples}`, "right"];
    return right ? [`◐ ${right} of ${samples}`, "some"] : [`✗ 0 of ${samples}`, "wrong"];
  }
}
