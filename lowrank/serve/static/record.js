// The table of facts: each with its cell, and which documents state it.

import { placeOf } from "./card.js";
import { $, element } from "./page.js";

export function showRows(facts) {
  $("cells").tBodies[0].replaceChildren(...facts.map(rowOf));
  $("stated-head").hidden = true;
}

function rowOf(fact) {
  const row = element("tr");
  row.dataset.fact = fact.key;
  const name = element("th", fact.label);
  name.scope = "row";
  const where = fact.cell ? placeOf(fact.cell).replace(`${fact.cell.file} · `, "") : `= ${fact.formula}`;
  const place = element("td", where);
  place.className = "where";
  row.append(name, element("td", fact.print), place);
  return row;
}

// Which facts each document states, a sign a document.
export function showStated(facts, sides) {
  const shown = sides.filter((side) => side.audit);
  $("stated-head").hidden = shown.length === 0;
  for (const row of $("cells").tBodies[0].rows) {
    row.querySelector(".stated")?.remove();
    if (!shown.length) continue;
    const fact = facts.find((one) => one.key === row.dataset.fact);
    const isIn = (side) => side.audit.stated.includes(fact.key);
    const missing = fact.required && fact.is_figure ? "✗" : "–";
    const cell = element("td", shown.map((side) => (isIn(side) ? "✓" : missing)).join(" "));
    cell.className = "stated";
    cell.title = shown.map((side) => `${side.name}: ${isIn(side) ? "stated" : "not stated"}`).join("; ");
    row.append(cell);
  }
}

// Marks the row of the fact that a figure states; null takes the mark away.
export function seeFact(figure) {
  const keys = figure ? [figure.fact] : [];
  for (const row of $("cells").tBodies[0].rows) {
    const isIt = keys.includes(row.dataset.fact);
    row.classList.toggle("seen", isIt);
    if (isIt) bringInto(row.closest(".scroll"), row);
  }
}

// Scrolls the table alone: the page stays where it is.
function bringInto(frame, row) {
  const head = $("cells").tHead.offsetHeight;
  if (row.offsetTop - head < frame.scrollTop) frame.scrollTop = row.offsetTop - head;
  const bottom = row.offsetTop + row.offsetHeight;
  if (bottom > frame.scrollTop + frame.clientHeight) frame.scrollTop = bottom - frame.clientHeight;
}
