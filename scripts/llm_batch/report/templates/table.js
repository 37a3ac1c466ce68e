// Tables whose headings sort them, and small things that every section uses.

const find = (selector, root = document) => root.querySelector(selector);
const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Make an element; text only ever becomes a text node. */
function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== "") element.textContent = text;
  return element;
}

/** Order two values of `data-sort`: numbers by size, texts by alphabet, unknown ones last. */
function compare(a, b, direction) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  const [x, y] = [Number(a), Number(b)];
  const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  return direction * order;
}

function makeSortable(table) {
  const headings = findAll("thead th", table);
  const body = find("tbody", table);
  const original = [...body.rows];
  headings.forEach((heading, column) => {
    find("button", heading).addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const numbers = !heading.classList.contains("text");
      const first = numbers ? "descending" : "ascending";
      const second = numbers ? "ascending" : "descending";
      const next = before === null ? first : before === first ? second : null;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      const rows = [...original];
      if (next) {
        heading.setAttribute("aria-sort", next);
        const direction = next === "ascending" ? 1 : -1;
        const key = (row) => row.cells[column].dataset.sort;
        rows.sort((a, b) => compare(key(a), key(b), direction));
      }
      body.append(...rows);
    });
  });
}

/** Mark the section that is being read in the navigation. */
function followSections() {
  const links = new Map(findAll("nav a").map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.classList.remove("here");
        links.get(entry.target.id).classList.add("here");
      }
    },
    { rootMargin: "-15% 0px -75% 0px" },
  );
  for (const id of links.keys()) seen.observe(document.getElementById(id));
}

/** A link to an identity opens it. */
function openTargets() {
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", open);
  open();
}

function offerCopy() {
  const button = find("#copy");
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(find("#command").textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(find("#command"));
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1600);
  });
}

/** On paper nothing can be opened, so everything but the longest parts is. */
function openForPrint() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = findAll("details:not([open]):not(.identity)");
    opened.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
}

/** With several metrics, the table and the plots show one at a time. */
function chooseMetrics() {
  const buttons = findAll("[data-choose-metric]");
  if (!buttons.length) return;
  const choose = (metric) => {
    for (const element of findAll("[data-metric]")) element.hidden = element.dataset.metric !== metric;
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.chooseMetric === metric));
    }
    document.dispatchEvent(new CustomEvent("metric", { detail: metric }));
  };
  for (const button of buttons) {
    button.parentElement.hidden = false;
    button.addEventListener("click", () => choose(button.dataset.chooseMetric));
  }
  choose(buttons[0].dataset.chooseMetric);
}

chooseMetrics();
findAll("table[data-sortable]").forEach(makeSortable);
followSections();
openTargets();
offerCopy();
openForPrint();
