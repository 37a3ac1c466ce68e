// A list of any length of which only what is seen exists.

const OPTION_HEIGHT = 54;

class List {
  /** `fill(option, item)` writes an item into an element, `choose(item)` is told of a choice. */
  constructor(element, fill, choose) {
    Object.assign(this, { element, fill, choose, items: [], at: -1 });
    this.space = element.appendChild(make("div", "space"));
    this.options = new Map();
    this.spare = [];
    element.addEventListener("scroll", () => this.draw(), { passive: true });
    element.addEventListener("keydown", (event) => this.key(event));
    element.addEventListener("click", (event) => {
      const option = event.target.closest(".option");
      if (option) this.select(Number(option.dataset.at));
    });
    new ResizeObserver(() => this.draw()).observe(element);
  }

  show(items, at) {
    this.items = items;
    this.space.style.height = `${items.length * OPTION_HEIGHT}px`;
    for (const option of this.options.values()) this.retire(option);
    this.options.clear();
    this.at = -1;
    this.element.scrollTop = 0;
    if (items.length) this.select(Math.max(0, at));
    else {
      this.element.removeAttribute("aria-activedescendant");
      this.draw();
      this.choose(null);
    }
  }

  select(at) {
    if (at < 0 || at >= this.items.length) return;
    this.at = at;
    const top = at * OPTION_HEIGHT;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + OPTION_HEIGHT > scrollTop + clientHeight) {
      this.element.scrollTop = top + OPTION_HEIGHT - clientHeight;
    }
    this.draw();
    this.element.setAttribute("aria-activedescendant", `option-${at}`);
    this.choose(this.items[at]);
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / OPTION_HEIGHT) - 1);
    const last = this.items.length - 1;
    const targets = {
      ArrowDown: this.at + 1, ArrowUp: this.at - 1, Home: 0, End: last,
      PageDown: this.at + page, PageUp: this.at - page,
    };
    if (!(event.key in targets) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.select(Math.min(last, Math.max(0, targets[event.key])));
  }

  draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / OPTION_HEIGHT) - 4);
    const end = Math.min(this.items.length,
      Math.ceil((scrollTop + clientHeight) / OPTION_HEIGHT) + 4);
    for (const [at, option] of this.options) {
      if (at < first || at >= end) {
        this.retire(option);
        this.options.delete(at);
      }
    }
    for (let at = first; at < end; at++) {
      if (!this.options.has(at)) this.options.set(at, this.place(at));
      this.options.get(at).setAttribute("aria-selected", String(at === this.at));
    }
  }

  place(at) {
    const option = this.spare.pop() ?? this.make();
    option.hidden = false;
    option.id = `option-${at}`;
    option.dataset.at = at;
    option.style.top = `${at * OPTION_HEIGHT}px`;
    option.setAttribute("aria-setsize", this.items.length);
    option.setAttribute("aria-posinset", at + 1);
    this.fill(option, this.items[at]);
    return option;
  }

  make() {
    const option = make("div", "option");
    option.setAttribute("role", "option");
    this.element.append(option);
    return option;
  }

  retire(option) {
    option.hidden = true;
    option.removeAttribute("id");
    this.spare.push(option);
  }
}
