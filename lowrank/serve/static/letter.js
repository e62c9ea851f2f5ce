// A document in Markdown as elements, its figures marked. All text is text: nothing of it is ever read as HTML.

const HEADING = /^(#{1,6})\s+(.*?)\s*#*\s*$/;
const ITEM = /^(\s*)(?:[-*+]|\d{1,3}[.)])\s+/;
const NUMBERED = /^\s*\d{1,3}[.)]\s/;
const RULE = /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/;

// Where the lines of a text begin and end.
function linesOf(text) {
  const lines = [];
  let start = 0;
  for (const line of text.split("\n")) {
    lines.push({ start, end: start + line.length, text: line });
    start += line.length + 1;
  }
  return lines;
}

// Blocks of lines that belong together: {kind, lines}.
function blocksOf(text) {
  const blocks = [];
  for (const line of linesOf(text)) {
    const last = blocks.at(-1);
    let kind = "paragraph";
    if (line.text.trim() === "") kind = "gap";
    else if (HEADING.test(line.text)) kind = "heading";
    else if (ITEM.test(line.text)) kind = NUMBERED.test(line.text) ? "ol" : "ul";
    else if (line.text.trimStart().startsWith("|")) kind = "table";
    if (last && last.kind === kind && kind !== "heading") last.lines.push(line);
    else blocks.push({ kind, lines: [line] });
  }
  return blocks.filter((block) => block.kind !== "gap");
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

// Puts a part of the text into an element: figures as buttons, ** as emphasis.
function putInline(parent, text, start, end, figures, makeFigure) {
  let into = parent;
  const plain = (from, to) => {
    text.slice(from, to).split("**").forEach((piece, place) => {
      if (place > 0) {
        if (into === parent) {
          into = element("strong");
          parent.append(into);
        } else into = parent;
      }
      if (piece) into.append(piece);
    });
  };
  let at = start;
  for (const figure of figures) {
    if (figure.start < at || figure.end > end) continue;
    plain(at, figure.start);
    into.append(makeFigure(figure, text.slice(figure.start, figure.end)));
    at = figure.end;
  }
  plain(at, end);
}

function cellsOf(line) {
  const cells = [];
  let from = line.start + line.text.indexOf("|") + 1;
  const last = line.start + line.text.trimEnd().length;
  for (let place = from; place <= last; place++) {
    const isEnd = place === last;
    if (isEnd && line.text.trimEnd().endsWith("|")) break;
    if (isEnd || line.text[place - line.start] === "|") {
      cells.push({ start: from, end: place });
      from = place + 1;
    }
  }
  return cells;
}

function makeBlock(block, text, figures, makeFigure) {
  const put = (parent, start, end) => putInline(parent, text, start, end, figures, makeFigure);
  const first = block.lines[0];
  if (block.kind === "heading") {
    const [, marks, words] = HEADING.exec(first.text);
    const heading = element(`h${Math.min(marks.length + 2, 6)}`);
    const start = first.start + first.text.indexOf(words, marks.length);
    put(heading, start, start + words.length);
    return heading;
  }
  if (block.kind === "ul" || block.kind === "ol") {
    const list = element(block.kind);
    for (const line of block.lines) {
      const item = element("li");
      put(item, line.start + ITEM.exec(line.text)[0].length, line.end);
      list.append(item);
    }
    if (block.kind === "ol") list.start = parseInt(first.text, 10) || 1;
    return list;
  }
  if (block.kind === "table") {
    const table = element("table");
    const hasHead = block.lines.length > 1 && RULE.test(block.lines[1].text);
    block.lines.forEach((line, number) => {
      if (RULE.test(line.text)) return;
      const row = element("tr");
      for (const cell of cellsOf(line)) {
        const made = element(hasHead && number === 0 ? "th" : "td");
        put(made, cell.start, cell.end);
        row.append(made);
      }
      table.append(row);
    });
    return element("div", table);
  }
  const paragraph = element("p");
  block.lines.forEach((line, number) => {
    if (number > 0) paragraph.append(element("br"));
    put(paragraph, line.start, line.end);
  });
  return paragraph;
}

// One document in one element. Blocks that did not change keep their elements, and with them focus and selection.
export class Letter {
  constructor(parent, makeFigure) {
    this.parent = parent;
    this.makeFigure = makeFigure;
    this.text = "";
    this.figures = [];
    this.shown = [];
  }

  show(text, figures = this.figures) {
    this.text = text;
    this.figures = figures;
    const blocks = blocksOf(text);
    blocks.forEach((block, place) => {
      const { start } = block.lines[0];
      const { end } = block.lines.at(-1);
      const inside = figures.filter((figure) => figure.start >= start && figure.end <= end);
      const marks = inside.map((figure) => [figure.start - start, figure.end - start, figure.state, figure.fact]);
      const signature = JSON.stringify([block.kind, text.slice(start, end), marks]);
      const before = this.shown[place];
      if (before?.signature === signature) return;
      const node = makeBlock(block, text, inside, this.makeFigure);
      if (before) before.node.replaceWith(node);
      else this.parent.append(node);
      this.shown[place] = { signature, node };
    });
    for (const { node } of this.shown.splice(blocks.length)) node.remove();
  }
}
