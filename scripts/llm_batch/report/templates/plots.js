// Plots: what is under the pointer, and one run at a time.

function showTips() {
  const tip = make("div", "tip");
  tip.hidden = true;
  document.body.append(tip);
  for (const figure of findAll(".plot")) {
    figure.addEventListener("pointermove", (event) => {
      const mark = event.target.closest("svg [aria-label]");
      // Axes carry a label too, but only marks are drawn in a run's or a phase's colour.
      tip.hidden = !mark || !colourOf(mark);
      if (tip.hidden) return;
      tip.textContent = mark.getAttribute("aria-label");
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(8, left)}px`;
      tip.style.top = `${event.clientY + 18}px`;
    });
    figure.addEventListener("pointerleave", () => (tip.hidden = true));
  }
}

function colourOf(mark) {
  const found = /--(run|phase|level)-(\d+)/;
  return found.exec(mark.getAttribute("fill")) || found.exec(mark.getAttribute("stroke"));
}

function singleOut() {
  const buttons = findAll(".legend button[data-run]");
  const marks = findAll(".plot svg [aria-label]")
    .map((mark) => [mark, colourOf(mark)])
    .filter(([, colour]) => colour && colour[1] === "run")
    .map(([mark, colour]) => [mark, colour[2]]);
  const show = (run) => {
    for (const [mark, owner] of marks) mark.classList.toggle("dim", run !== null && owner !== run);
  };
  const pressed = () =>
    buttons.find((button) => button.getAttribute("aria-pressed") === "true")?.dataset.run ?? null;
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      buttons.forEach((other) => other.setAttribute("aria-pressed", "false"));
      button.setAttribute("aria-pressed", String(on));
      show(pressed());
    });
    button.addEventListener("pointerenter", () => show(button.dataset.run));
    button.addEventListener("pointerleave", () => show(pressed()));
  }
}

showTips();
singleOut();
