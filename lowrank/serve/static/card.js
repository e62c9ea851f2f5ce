// The card beside a figure: which cell it comes from. It follows the mouse and the keyboard's focus alike.

const card = document.getElementById("card");
const GAP = 8;
let pointedAt = null; // the figure that the card is of

const STATES = {
  right: "In the facts, under its own name",
  "other name": "In the facts, but under another name",
  "not in the facts": "Not in the facts",
  "not understood": "Not understood",
};

export function placeOf(cell) {
  const parts = [cell.file];
  if (cell.sheet) parts.push(cell.sheet);
  if (cell.row !== null) parts.push(`${cell.sheet || cell.column ? "row" : "line"} ${cell.row}`);
  if (cell.column) parts.push(`column ${cell.column}`);
  return parts.join(" · ");
}

// Lines of a figure: what it states, and where that stands.
export function linesOf(figure) {
  const lines = [];
  if (figure.fact) lines.push(["strong", `${figure.label}: ${figure.print}`]);
  if (figure.formula && figure.cells.length !== 1) lines.push(["p", `= ${figure.formula}`]);
  for (const cell of figure.cells) lines.push(["p", placeOf(cell)]);
  const reason = figure.reason && figure.state === "not understood" ? `: ${figure.reason}` : "";
  lines.push(["p", `${STATES[figure.state]}${reason}`]);
  return lines;
}

function show(anchor, figure) {
  card.replaceChildren(
    ...linesOf(figure).map(([name, words], number, all) => {
      const line = document.createElement(name);
      line.textContent = words;
      if (number === all.length - 1) line.className = "verdict";
      return line;
    }),
  );
  card.dataset.state = figure.state;
  card.hidden = false;
  pointedAt = anchor;
  anchor.setAttribute("aria-describedby", "card");
  const place = anchor.getClientRects()[0] ?? anchor.getBoundingClientRect();
  const { width, height } = card.getBoundingClientRect();
  const left = Math.min(Math.max(GAP, place.left), document.documentElement.clientWidth - width - GAP);
  const below = place.bottom + GAP;
  card.style.left = `${left}px`;
  card.style.top = `${below + height > window.innerHeight ? Math.max(GAP, place.top - height - GAP) : below}px`;
}

export function hide() {
  card.hidden = true;
  pointedAt = null;
}

const CLASSES = { right: "right", "other name": "other" };

// A figure of the text as a button; `seen` is called with its fact when it is pointed at, and with null when not any more.
export function makeFigure(figure, words, seen) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = `figure ${CLASSES[figure.state] ?? "wrong"}`;
  button.textContent = words;
  const enter = () => {
    show(button, figure);
    seen(figure);
  };
  const leave = () => {
    hide();
    button.removeAttribute("aria-describedby");
    seen(null);
  };
  button.addEventListener("pointerenter", enter);
  button.addEventListener("pointerleave", leave);
  button.addEventListener("focus", enter);
  button.addEventListener("blur", leave);
  button.addEventListener("click", enter);
  return button;
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});
addEventListener(
  "scroll",
  (event) => {
    if (pointedAt && event.target.contains(pointedAt)) hide();
  },
  { passive: true, capture: true },
);
