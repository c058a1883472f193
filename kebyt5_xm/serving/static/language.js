/** The page's texts in the reader's language: elements name a key, and are written again when the language changes. */
import en from "./en.js";
import ko from "./ko.js";

const TABLES = { en, ko };
const ATTRIBUTES = { label: "aria-label", title: "title", alt: "alt" };
const STORED = "language";
let language = "en";

/** Return the text of a key; {name} becomes values.name, and {{ and }} stay as they are. */
export function text(key, values = {}) {
  const found = TABLES[language][key];
  if (found === undefined) throw new Error(`no text '${key}'`);
  return found.replace(/\{(\w+)\}/g, (place, name) => (name in values ? String(values[name]) : place));
}

/** Let an element show the text of a key, as its content or, with `where`, as an attribute. */
export function say(element, key, values = {}, where = "text") {
  element.dataset[where] = key;
  element.dataset[`${where}Values`] = JSON.stringify(values);
  write(element);
}

/** Take a text back that `say` gave. */
export function unsay(element) {
  delete element.dataset.text;
  element.textContent = "";
}

/** Write the whole page in a language, "ko" or "en", and remember it. */
export function setLanguage(chosen) {
  language = chosen in TABLES ? chosen : "en";
  document.documentElement.lang = language;
  try {
    localStorage.setItem(STORED, language);
  } catch {
    // without storage the choice holds until the page is closed
  }
  for (const element of document.querySelectorAll("[data-text], [data-label], [data-title], [data-alt]")) write(element);
  for (const button of document.querySelectorAll("[data-language]"))
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
}

/** Return the language that was chosen before, or else the browser's. */
export function preferredLanguage() {
  let stored = null;
  try {
    stored = localStorage.getItem(STORED);
  } catch {
    // as if nothing had been chosen
  }
  return stored ?? (navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en");
}

/** Return a share as a percentage; small ones with a decimal. */
export function percent(share) {
  const digits = share > 0 && share < 0.1 ? 1 : 0;
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: digits }).format(share);
}

/** Return a number as people of the language write it. */
export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

function write(element) {
  const found = (where) => text(element.dataset[where], JSON.parse(element.dataset[`${where}Values`] ?? "{}"));
  if (element.dataset.text) element.textContent = found("text");
  for (const [where, attribute] of Object.entries(ATTRIBUTES))
    if (element.dataset[where]) element.setAttribute(attribute, found(where));
}
