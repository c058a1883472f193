/** The written answer: its words shaded by their probability, the probabilities of labels, the filled text. */
import { percent, say } from "./language.js";

const NOTHING = "∅";
const STEPS = [1, 0.75, 0.5, 0.25, 0];

/**
 * Show an answer's words, each with its probability.
 *
 * One of them can be reached by Tab, the others by arrow keys. `onWord` takes the number of the word that is looked at,
 * by pointer, focus or because Enter or a click keeps it, and null for none.
 */
export function showWords(container, { text: whole, words }, onWord) {
  const characters = [...whole]; // the server counts characters, JavaScript halves of them
  const elements = [];
  let kept = null;
  let end = 0;
  const line = document.createElement("p");
  line.setAttribute("role", "group");
  say(line, "words", {}, "label");
  words.forEach((word, number) => {
    line.append(characters.slice(end, word.start).join(""));
    const element = wordElement(word);
    element.setAttribute("role", "button");
    element.setAttribute("aria-pressed", "false");
    element.tabIndex = number === 0 ? 0 : -1;
    const keep = () => {
      kept = kept === number ? null : number;
      elements.forEach((other, n) => other.setAttribute("aria-pressed", String(n === kept)));
      onWord(kept ?? number);
    };
    element.onclick = keep;
    element.onpointerenter = () => onWord(number);
    element.onpointerleave = () => onWord(kept);
    element.onfocus = () => onWord(number);
    element.onblur = () => onWord(kept);
    element.onkeydown = (event) => move(event, elements, number, keep);
    elements.push(element);
    line.append(element);
    end = word.end;
  });
  line.append(characters.slice(end).join(""));
  container.replaceChildren(line);
}

/** Show a text whose gaps were filled, and what stood in them before, if that is known. */
export function showFilled(container, { text: whole, spans, words }, before) {
  const characters = [...whole];
  const line = document.createElement("p");
  let end = 0;
  for (const span of spans) {
    line.append(characters.slice(end, span.start).join(""));
    const mark = document.createElement("mark");
    end = span.start;
    for (const word of words.filter(({ start }) => span.start <= start && start < span.end)) {
      mark.append(characters.slice(end, word.start).join(""), wordElement(word));
      end = word.end;
    }
    mark.append(characters.slice(end, span.end).join(""), span.text ? "" : NOTHING);
    line.append(mark);
    end = span.end;
  }
  line.append(characters.slice(end).join(""));
  container.replaceChildren(line);
  const known = before.some((span) => span.trim());
  if (!known) return;
  const list = document.createElement("p");
  list.className = "hint";
  const name = document.createElement("span");
  say(name, "wasInGaps");
  list.append(name, ": ", before.map((span) => span || "–").join(" · "));
  container.append(list);
}

/** Show the probability of each label, the highest first. */
export function showLabels(container, probabilities) {
  const list = document.createElement("ol");
  list.className = "labels";
  say(list, "probabilities", {}, "label");
  for (const [label, probability] of Object.entries(probabilities).sort((a, b) => b[1] - a[1])) {
    const item = document.createElement("li");
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.style.setProperty("--share", probability);
    const share = Object.assign(document.createElement("span"), { className: "share", textContent: percent(probability) });
    item.append(bar, Object.assign(document.createElement("span"), { textContent: label }), share);
    list.append(item);
  }
  container.replaceChildren(list);
}

/** Explain the shades of words. */
export function showLegend(container) {
  const title = document.createElement("p");
  say(title, "legend");
  const steps = document.createElement("p");
  steps.className = "steps";
  for (const step of STEPS) {
    const swatch = Object.assign(document.createElement("span"), { className: "word", textContent: percent(step) });
    shade(swatch, step);
    steps.append(swatch);
  }
  const note = Object.assign(document.createElement("p"), { className: "hint" });
  say(note, "legendHint");
  container.replaceChildren(title, steps, note);
}

function wordElement({ text: content, confidence }) {
  const element = Object.assign(document.createElement("span"), { className: "word", textContent: content });
  shade(element, confidence);
  const values = { text: content, percent: percent(confidence) };
  element.title = percent(confidence);
  element.setAttribute("role", "img"); // so that it has a name; words that can be kept are buttons
  say(element, "word", values, "label");
  return element;
}

/** Shade by probability; the least probable are underlined too, for those who do not see the shade. */
function shade(element, probability) {
  element.style.setProperty("--doubt", 1 - probability);
  element.classList.toggle("doubtful", probability < 0.5);
}

function move(event, elements, number, keep) {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const targets = { Home: 0, End: elements.length - 1 };
  if (event.key === "Enter" || event.key === " ") keep();
  else if (event.key in steps || event.key in targets) {
    const next = event.key in steps ? number + steps[event.key] : targets[event.key];
    if (!elements[next]) return;
    elements[number].tabIndex = -1;
    elements[next].tabIndex = 0;
    elements[next].focus();
  } else return;
  event.preventDefault();
}
