// Small things of the page that all parts of it use.

export const $ = (id) => document.getElementById(id);

// An element of a name with words in it.
export function element(name, words = "") {
  const made = document.createElement(name);
  made.textContent = words;
  return made;
}

// A message in its place; "" takes it away.
export function tell(place, message) {
  place.textContent = message;
  place.hidden = !message;
}

// Words for whoever listens to the page.
export function say(words) {
  $("spoken").append(element("span", `${words} `));
  while ($("spoken").childElementCount > 20) $("spoken").firstElementChild.remove();
}

// The options of a select, (value, words) each; what was chosen stays chosen if it is still there.
export function fill(select, entries, chosen = select.value) {
  select.replaceChildren(
    ...entries.map(([value, words]) => {
      const option = element("option", words);
      option.value = value;
      return option;
    }),
  );
  if (entries.some(([value]) => value === chosen)) select.value = chosen;
}
