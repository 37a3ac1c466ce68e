// The browser of rows: tools, list and detail, wired together.

class Browser {
  constructor(rows) {
    this.rows = rows;
    this.metrics = [...new Set(rows.data.runs.flatMap((run) => Object.keys(run.scores)))];
    this.choices = { a: 0, b: null, metric: this.metrics[0] ?? "", query: "", show: "all" };
    this.row = null;
    this.list = new List(find("#list"), (...args) => this.fill(...args), (row) => this.choose(row));
    this.detail = new Detail(find("#detail"), rows, (by) => this.list.select(this.list.at + by));
    this.makeFilters();
    this.wireTools();
    this.update();
  }

  wireTools() {
    const query = find("#query");
    query.addEventListener("input", () => this.change({ query: query.value }));
    find("#run-a").addEventListener("change", (event) => this.changeRun(Number(event.target.value)));
    find("#run-b")?.addEventListener("change", (event) => {
      this.change({ b: event.target.value === "" ? null : Number(event.target.value) });
    });
    const metric = find("#metric");
    for (const name of this.metrics) metric.append(new Option(name, name));
    find("#metric-label").hidden = this.metrics.length < 2;
    metric.addEventListener("change", () => this.change({ metric: metric.value }));
    document.addEventListener("metric", (event) => {
      metric.value = event.detail;
      this.change({ metric: event.detail });
    });
    document.addEventListener("keydown", (event) => this.key(event));
    for (const button of findAll("[data-show-row]")) this.wireExample(button);
    this.offerOthers();
  }

  wireExample(button) {
    const run = Number(button.dataset.showRun);
    const row = this.rows.find(button.dataset.showRow, run);
    button.hidden = row < 0;
    button.addEventListener("click", () => {
      this.row = row;
      find("#query").value = "";
      find("#run-a").value = String(run);
      this.changeRun(run, { query: "", show: "all" });
      find("#rows").scrollIntoView();
      find("#list").focus({ preventScroll: true });
    });
  }

  key(event) {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      find("#query").focus();
    } else if (event.key === "ArrowDown" && event.target.id === "query") {
      event.preventDefault();
      find("#list").focus();
    }
  }

  makeFilters() {
    const group = find("#filters");
    this.filters = FILTERS.map((filter) => {
      const button = make("button");
      button.type = "button";
      button.dataset.key = filter.key;
      button.setAttribute("role", "radio");
      if (filter.title) button.title = filter.title;
      button.append(filter.label, make("span", "of"));
      button.addEventListener("click", () => this.change({ show: filter.key }));
      group.append(button);
      return [filter, button];
    });
    group.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const shown = this.filters.map(([, button]) => button).filter((button) => !button.hidden);
      const next = shown[(shown.indexOf(event.target) + by + shown.length) % shown.length];
      next.click();
      next.focus();
    });
  }

  changeRun(a, other = {}) {
    const b = this.choices.b === a ? null : this.choices.b;
    this.choices.a = a;
    this.choices.b = b;
    this.offerOthers();
    this.change(other);
  }

  /** Offer only those runs beside the first that answer some of its rows. */
  offerOthers() {
    const select = find("#run-b");
    if (!select) return;
    const first = this.rows.runs[this.choices.a];
    for (const option of select.options) {
      if (option.value === "") continue;
      const other = this.rows.runs[Number(option.value)];
      const shared = first.rows.some((row) => other.places[row] !== NOTHING);
      option.disabled = other === first || !shared;
      if (option.disabled && this.choices.b === Number(option.value)) this.choices.b = null;
    }
    select.value = this.choices.b === null ? "" : String(this.choices.b);
  }

  change(changed) {
    Object.assign(this.choices, changed);
    const filter = FILTERS.find((one) => one.key === this.choices.show);
    if (!this.applies(filter)) this.choices.show = "all";
    this.update();
  }

  applies(filter) {
    const scored = this.rows.data.runs[this.choices.a].scores[this.choices.metric];
    return (!filter.scored || Boolean(scored)) && (!filter.pair || this.choices.b !== null);
  }

  update() {
    const { rows, counts } = this.rows.filter(this.choices);
    for (const [filter, button] of this.filters) {
      const chosen = filter.key === this.choices.show;
      button.hidden = !this.applies(filter);
      button.setAttribute("aria-checked", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
      find(".of", button).textContent = (counts[filter.key] ?? 0).toLocaleString("en").replaceAll(",", "\u202f");
    }
    const count = (number) => number.toLocaleString("en").replaceAll(",", "\u202f");
    const all = this.rows.runs[this.choices.a].size;
    find("#count").textContent = `${count(rows.length)} of ${count(all)} rows`;
    this.list.show(rows, this.row === null ? 0 : rows.indexOf(this.row));
  }

  fill(option, row) {
    const run = this.rows.runs[this.choices.a];
    const place = run.places[row];
    const top = make("div", "top");
    const id = make("bdi", "id", this.rows.id(row));
    const [words, kind] = run.verdict(place, this.choices.metric);
    top.append(id, make("span", `verdict ${kind}`, words));
    if (this.choices.b !== null) {
      const other = this.rows.runs[this.choices.b];
      const [also, otherKind] = other.verdict(other.places[row], this.choices.metric);
      top.append(make("span", "muted", "|"), make("span", `verdict ${otherKind}`, also));
    }
    const line = make("div", "prompt");
    line.dir = "auto";
    line.textContent = promptLine(this.rows.text(run.prompt[place]));
    option.replaceChildren(top, line);
  }

  choose(row) {
    if (row !== null) this.row = row;
    const { at, items } = this.list;
    this.detail.show(row, this.choices, { first: at <= 0, last: at >= items.length - 1 });
  }
}

/** Read the data when the page has been drawn: it can be large. */
function startBrowser() {
  const element = find("#data");
  if (!element) return;
  const rows = new Rows(JSON.parse(element.textContent));
  element.remove();
  find("#loading").hidden = true;
  find("#browser").hidden = false;
  new Browser(rows);
  (window.requestIdleCallback ?? setTimeout)(() => rows.prepare());
  performance.mark("rows-ready");
  document.documentElement.dataset.ready = "rows";
}

requestAnimationFrame(() => setTimeout(startBrowser));
