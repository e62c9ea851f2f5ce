// One document on the page: as it is written, its figures, its end, and the files that it goes out as.

import { makeFigure } from "./card.js";
import { Letter } from "./letter.js";
import { $, element, say } from "./page.js";
import { seeFact } from "./record.js";
import * as server from "./server.js";

const REASONS = {
  max_new_tokens: "cut: it has as many tokens as it may",
  context: "cut: the context of the base is full",
};

export class Side {
  // source  the file, record and kind that it is written from
  // desk    isCurrent(source): true if these facts are shown; showAll(): shows which are stated; attempt(place, work)
  constructor(model, name, source, desk) {
    Object.assign(this, { model, name, source, desk });
    this.text = "";
    this.spoken = 0;
    this.audit = null;
    this.node = $("side").content.firstElementChild.cloneNode(true);
    this.part = (name) => this.node.querySelector(name);
    this.part("h2").textContent = name;
    this.part(".state").textContent = "waiting";
    this.part(".letter").setAttribute("aria-label", `Document by ${name}`);
    const see = (figure) => seeFact(desk.isCurrent(source) ? figure : null);
    this.letter = new Letter(this.part(".letter"), (figure, words) => makeFigure(figure, words, see));
    for (const button of this.node.querySelectorAll("[data-format]")) {
      button.addEventListener("click", () => this.save(button.dataset.format));
    }
  }

  add(piece, isAlone) {
    this.text += piece;
    this.part(".state").textContent = "writing";
    this.node.classList.add("writing");
    this.letter.show(this.text);
    const line = this.text.lastIndexOf("\n");
    if (isAlone && line > this.spoken) {
      say(this.text.slice(this.spoken, line).trim());
      this.spoken = line;
    }
  }

  show(audit) {
    this.audit = audit;
    this.letter.show(this.text, audit.figures);
    this.desk.showAll();
  }

  end({ text, audit, reason, tokens, seconds }) {
    this.text = text;
    this.show(audit);
    this.node.classList.remove("writing");
    const cut = REASONS[reason] ? ` · ${REASONS[reason]}` : "";
    this.part(".state").textContent = `${tokens} tokens in ${seconds} s${cut}`;
    this.part(".tally").textContent = audit.sentence;
    const faults = [...audit.faults, ...audit.missing_sections.map((title) => `section missing: ${title}`)];
    this.part(".faults").replaceChildren(
      ...faults.map((fault) => element("li", fault)),
    );
    this.part(".faults").hidden = faults.length === 0;
    this.part(".export").hidden = text.trim() === "";
    say(`${this.name}: written. ${audit.sentence}. ${faults.join(". ")}`);
  }

  stop(words) {
    this.node.classList.remove("writing");
    if (this.part(".export").hidden) this.part(".state").textContent = words;
  }

  save(format) {
    return this.desk.attempt(this.part(".export .error"), async () => {
      const file = await server.exported({ format, text: this.text, model: this.model, ...this.source });
      const address = URL.createObjectURL(file.content);
      const link = element("a");
      link.href = address;
      link.download = file.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    });
  }
}
