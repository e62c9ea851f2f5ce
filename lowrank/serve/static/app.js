// The workbench: facts in, choices, documents as they are written, files out.

import { hide } from "./card.js";
import { $, element, fill, say, tell } from "./page.js";
import { showRows, showStated } from "./record.js";
import * as server from "./server.js";
import { Side } from "./side.js";

const LARGEST = 8_000_000; // bytes of a file

let known = null; // bases, kinds, limits
let facts = null; // the file and its record, as the server read them
let sides = []; // the documents that are shown
let writing = null; // ends what is being written

// Does something, and tells in its place what went wrong; a lock that fell in the meantime shows the door.
async function attempt(place, work) {
  tell(place, "");
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof server.Refused)) throw error;
    if (error.status === 401 && place !== $("enter-error")) showDoor(error.message);
    else tell(place, error.message);
  }
}

// The door

function showDoor(message = "") {
  writing?.abort();
  $("open").hidden = true;
  $("locked").hidden = false;
  tell($("enter-error"), message);
  $("code").focus();
}

async function enter(code) {
  await server.enter(code);
  await open();
}

async function open() {
  known = await server.state();
  $("locked").hidden = true;
  $("open").hidden = false;
  $("code").value = "";
  fillChoices();
}

async function begin() {
  const code = decodeURIComponent(location.hash.slice(1));
  if (code) history.replaceState(null, "", location.pathname);
  await attempt($("enter-error"), async () => {
    if (code) await enter(code);
    else if (server.isKnown()) await open();
    else showDoor();
  });
  if ($("open").hidden) showDoor($("enter-error").textContent);
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt($("enter-error"), () => enter($("code").value));
});
$("lock").addEventListener("click", async () => {
  await attempt($("write-error"), server.leave);
  location.reload();
});
addEventListener("hashchange", begin);

// Choices

const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);
const kindNow = () => known.kinds.find((kind) => kind.name === $("kind").value);
const baseNow = () => known.bases.find((base) => base.name === $("base").value);

function fillChoices() {
  const own = known.bases.flatMap((base) => base.choices.flatMap((choice) => choice.kinds));
  fill($("kind"), known.kinds.map((kind) => [kind.name, kind.title]), own[0] ?? "credit_memo");
  fill($("base"), known.bases.map((base) => [base.name, base.name]));
  $("base-field").hidden = known.bases.length === 1;
  fill($("style"), known.styles.map((style) => [style, capital(style)]));
  $("longest").max = known.most_tokens;
  $("longest").value = Math.min(600, known.most_tokens);
  $("where").textContent = known.bases.map((base) => base.name).join(", ");
  fillHats();
  showKind();
}

function fillHats() {
  const named = (choice) => [choice.model, choice.hat ?? "none: the base alone"];
  const choices = baseNow().choices;
  const hats = choices.filter((choice) => choice.hat);
  fill($("hat"), choices.map(named), hats[0]?.model);
  fill($("other"), [["", "nothing else"], ...choices.map(named)], "");
}

function showKind() {
  const kind = kindNow();
  $("kind-help").textContent = kind.sections.length ? kind.sections.join(" · ") : "Any facts; the model chooses the headings.";
  for (const button of [$("example"), $("example-too")]) button.hidden = !kind.has_example;
}

$("base").addEventListener("change", fillHats);
$("kind").addEventListener("change", () => {
  showKind();
  if (facts) attempt($("facts-error"), () => readRecord(facts.record));
});
$("grounded").addEventListener("change", () => {
  $("grounded-help").textContent = $("grounded").checked
    ? "No figure is written that the facts do not have."
    : "The model may write any figure; each is checked all the same.";
});

// Facts

async function take(content, name) {
  if (content.size > LARGEST) throw new server.Refused(`${name}: must have at most ${LARGEST / 1e6} MB`, 0);
  const read = await server.sendFacts(content, name, $("kind").value);
  showFacts(read, read.file);
}

async function readRecord(record) {
  showFacts(await server.readRecord(facts.file, $("kind").value, record), facts.file);
}

function showFacts(read, file) {
  facts = { ...read, file };
  $("intake").hidden = true;
  $("taken").hidden = false;
  $("file-name").textContent = read.name;
  $("file-summary").textContent = read.summary.replace(`${read.name}: `, "");
  fill($("record"), read.records.map((name, place) => [String(place + 1), name]), read.record);
  $("records").hidden = read.records.length < 2;
  $("notes").replaceChildren(
    ...read.notes.map((note) => element("li", note.replace(`${read.name}: `, ""))),
  );
  $("notes").hidden = !read.notes.length;
  showRows(read.facts);
  showAll();
  say(`${read.name}: ${$("file-summary").textContent}`);
}

function forget() {
  facts = null;
  $("taken").hidden = true;
  $("intake").hidden = false;
  $("file").value = "";
  $("file").focus();
}

const takeFile = (file) => attempt($("facts-error"), () => take(file, file.name));

async function tryExample() {
  await attempt($("facts-error"), async () => {
    const made = await server.example($("kind").value);
    await take(new Blob([made.text]), made.name);
    $("write").focus();
  });
}

$("file").addEventListener("change", () => $("file").files[0] && takeFile($("file").files[0]));
$("example").addEventListener("click", tryExample);
$("example-too").addEventListener("click", tryExample);
$("other-file").addEventListener("click", forget);
$("record").addEventListener("change", () => attempt($("facts-error"), () => readRecord($("record").value)));
$("paste").addEventListener("click", () => {
  $("pasting").hidden = !$("pasting").hidden;
  $("paste").setAttribute("aria-expanded", String(!$("pasting").hidden));
  if (!$("pasting").hidden) $("pasted").focus();
});
$("use-pasted").addEventListener("click", () =>
  attempt($("facts-error"), () => take(new Blob([$("pasted").value]), "pasted.txt")),
);

// A file may be dropped anywhere, but not opened in place of the page.
for (const name of ["dragenter", "dragover"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files[0] && !$("open").hidden) takeFile(event.dataTransfer.files[0]);
});

// Documents

async function write() {
  if (!facts) throw new server.Refused("There are no facts yet: choose a file, or try an example.", 0);
  const names = new Map(baseNow().choices.map((choice) => [choice.model, choice.hat ?? choice.model]));
  const source = { file: facts.file, kind: $("kind").value, record: facts.record };
  const sideOf = (model) => new Side(model, names.get(model), source, { isCurrent, showAll, attempt });
  const models = [$("hat").value, $("other").value].filter((name, place, all) => name && all.indexOf(name) === place);
  const asked = {
    ...source,
    models,
    style: $("style").value,
    grounded: $("grounded").checked,
    temperature: Number($("temperature").value),
    seed: Number($("seed").value),
    max_new_tokens: Number($("longest").value),
  };
  writing = new AbortController();
  const events = server.write(asked, writing.signal);
  setWriting(true);
  try {
    for await (const event of events) {
      if (event.type === "begin") {
        if (event.side === 0) showSides(models.map(sideOf));
        continue;
      }
      if (event.type === "error") throw new server.Refused(event.message, 0);
      const side = sides[event.side];
      if (event.type === "piece") side.add(event.text, sides.length === 1);
      else if (event.type === "audit") side.show(event.audit);
      else if (event.type === "end") side.end(event);
    }
  } finally {
    const words = writing.signal.aborted ? "stopped" : "not finished";
    for (const side of sides) side.stop(words);
    setWriting(false);
  }
}

// True if a document was written from the facts that are shown now.
function isCurrent({ file, record, kind }) {
  return facts?.file === file && facts.record === record && facts.kind === kind;
}

function showAll() {
  showStated(facts?.facts ?? [], sides.filter((side) => isCurrent(side.source)));
}

function showSides(made) {
  hide();
  sides = made;
  $("first").hidden = true;
  $("sides").hidden = false;
  $("sides").classList.toggle("two", made.length > 1);
  $("sides").replaceChildren(...made.map((side) => side.node));
  say(`Writing: ${made.map((side) => side.name).join(" and ")}`);
  if (matchMedia("(max-width: 60rem)").matches) $("documents").scrollIntoView();
}

function setWriting(is) {
  $("write").hidden = is;
  $("stop").hidden = !is;
  if (is) $("stop").focus({ preventScroll: true });
  else if (document.activeElement === document.body || document.activeElement === $("stop")) {
    $("write").focus({ preventScroll: true });
  }
}

$("desk").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("write").hidden) return;
  attempt($("write-error"), write);
});
$("stop").addEventListener("click", () => writing?.abort());

begin();

