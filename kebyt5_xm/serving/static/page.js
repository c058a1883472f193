/** The page: asks the server what it can do, lets people ask, and shows what the model writes. */
import { showFilled, showLabels, showLegend, showWords } from "./answer.js";
import { answer, describe, onToken, Problem, stream } from "./api.js";
import { AttentionFigures } from "./attention.js";
import { onSchemeChange } from "./colours.js";
import { filesOf, showExamples, showGapExamples } from "./examples.js";
import { markedText, parseGaps, toggleGap } from "./gaps.js";
import { Input } from "./input.js";
import { number, percent, preferredLanguage, say, setLanguage, text, unsay } from "./language.js";

const element = (id) => document.getElementById(id);
const KINDS = { image: "kindImage", audio: "kindAudio", array: "kindArray" };
const ENDS = { stop: "doneStop", length: "doneLength", loop: "doneLoop" };

let description;
let input;
let running = null; // the AbortController of the request that runs
let figures = null; // of the answer that is shown
let expected = null; // the right answer to the example that was chosen

async function start() {
  for (const button of document.querySelectorAll("[data-language]"))
    button.onclick = () => {
      setLanguage(button.dataset.language);
      showAbout();
    };
  setLanguage(preferredLanguage());
  onToken(askForToken);
  try {
    description = await describe();
  } catch (error) {
    showProblem(error.message);
    return;
  }
  element("model").textContent = document.title = description.model;
  showAbout();
  input = new Input(description, showProblem, () => (expected = null));
  element("longest").value = Math.min(256, description.limits.max_new_tokens);
  element("longest").max = description.limits.max_new_tokens;
  showTasks();
  element("ask").onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  element("stop").onclick = stop;
  element("mark-gap").onclick = () => toggleGap(element("gap-text"));
  document.addEventListener("keydown", onKey);
  onSchemeChange(() => figures?.show());
  document.body.dataset.ready = "";
}

function onKey(event) {
  const isGaps = input.prompt === null;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
  else if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) stop();
  else if (event.altKey && event.code === "KeyG" && isGaps) toggleGap(element("gap-text"));
  else return;
  event.preventDefault();
}

function showAbout() {
  if (!description) return;
  const kinds = new Set(Object.values(description.modalities).map((media) => KINDS[media]));
  const names = ["kindText", ...kinds].map((key) => text(key));
  say(element("about"), "about", { kinds: names.join(", ") });
}

function showTasks() {
  const choices = description.prompts.map((prompt) => [prompt.name, prompt]);
  if (description.gaps) choices.push([null, null]);
  choices.forEach(([name, prompt], n) => {
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "task", id: `task-${n}` });
    const label = Object.assign(document.createElement("label"), { htmlFor: radio.id });
    if (name === null) say(label, "fillTask");
    else label.textContent = name;
    radio.onchange = () => choose(prompt);
    radio.checked = n === 0;
    element("tasks").append(radio, label);
  });
  element("tasks").hidden = choices.length < 2;
  choose(choices[0][1]);
}

function choose(prompt) {
  expected = null;
  input.choose(prompt);
  const section = element("examples");
  if (prompt === null) {
    showGapExamples(section, description.gaps, (example) => {
      element("gap-text").value = markedText(example.pieces, example.spans);
      send();
    });
    return;
  }
  const own = description.examples.filter((example) => description.prompts[example.prompt] === prompt);
  const media = prompt.parts.filter((part) => part.type in KINDS);
  showExamples(section, own, prompt, async (example) => {
    try {
      await input.fill(example, await filesOf(example, media));
    } catch (error) {
      showProblem(error.message);
      return;
    }
    await send(example.target);
  });
}

async function send(target = null) {
  if (running) stop();
  clear();
  const controller = (running = new AbortController());
  expected = target ?? expected;
  const began = performance.now();
  const seconds = () => number((performance.now() - began) / 1000, 1);
  element("stop").disabled = false;
  say(element("state"), "waiting");
  announce("waiting");
  try {
    const { segments, views } = await input.segments();
    const body = { segments, ...options() };
    const labels = input.prompt?.labels;
    if (input.prompt === null) {
      const { answers, usage } = await answer(body, controller.signal);
      showFilledAnswer(answers[0], usage, seconds());
    } else if (labels) {
      delete body.temperature;
      showLabelled(await answer({ ...body, labels }, controller.signal));
    } else {
      const events = stream({ ...body, details: true, attention: true }, controller.signal);
      for await (const event of events) {
        if (running !== controller) return;
        if (event.answers) showAnswer(event.answers[0], event.usage, views, seconds());
        else addPiece(event.text);
      }
    }
  } catch (error) {
    if (running !== controller) return; // another request has begun
    if (error.name === "AbortError") {
      say(element("state"), "stopped", { seconds: seconds() });
      announce("stopped", { seconds: seconds() });
    } else showProblem(error.message, error instanceof Problem ? error.status : 0);
  } finally {
    if (running === controller) {
      running = null;
      element("stop").disabled = true;
      element("written").firstChild?.classList.remove("growing");
    }
  }
}

function stop() {
  running?.abort();
}

function options() {
  const read = (id) => {
    const control = element(id);
    if (!control.value || !control.checkValidity()) {
      const label = document.querySelector(`label[for="${id}"]`).textContent;
      element("options").open = true;
      throw new Error(text("badNumber", { label, least: control.min, most: control.max }));
    }
    return Number(control.value);
  };
  element("temperature").step = "any";
  const temperature = read("temperature");
  return { max_new_tokens: read("longest"), ...(temperature ? { temperature } : {}) };
}

function clear() {
  showProblem(null);
  for (const id of ["empty", "written", "expected", "legend", "looked"]) element(id).hidden = true;
  element("written").replaceChildren();
  unsay(element("state"));
}

function addPiece(piece) {
  const written = element("written");
  if (written.hidden) {
    written.hidden = false;
    written.append(Object.assign(document.createElement("p"), { className: "growing" }));
    say(element("state"), "writing");
  }
  written.firstChild.append(piece);
}

function showAnswer(found, usage, views, seconds) {
  element("written").hidden = false;
  figures = new AttentionFigures(element("looked"), found, views);
  showWords(element("written"), found, (word) => figures.show(word));
  if (!found.text) say(element("written").firstChild, "nothing");
  showEnd(found, usage, seconds);
  if (expected !== null) showExpected(found.text);
  showOnPhones();
}

function showFilledAnswer(found, usage, seconds) {
  element("written").hidden = false;
  showFilled(element("written"), found, parseGaps(element("gap-text").value).spans);
  showEnd(found, usage, seconds);
  showOnPhones();
}

function showEnd(found, usage, seconds) {
  const values = { bytes: number(usage.output_bytes), seconds, percent: percent(found.confidence) };
  say(element("state"), ENDS[found.finish_reason], values);
  element("legend").hidden = !(found.words ?? found.spans).length;
  showLegend(element("legend"));
  announce("announcement", { text: found.text || text("nothing"), percent: percent(found.confidence) });
}

function showLabelled({ answers, probabilities }) {
  const [{ text: best }] = answers;
  element("written").hidden = false;
  showLabels(element("written"), probabilities);
  unsay(element("state"));
  announce("announcementLabels", { text: best, percent: percent(probabilities[best]) });
  showOnPhones();
  if (expected !== null) showExpected(best);
}

function showExpected(written) {
  const box = element("expected");
  const isSame = written === expected;
  const name = document.createElement("span");
  say(name, "expected");
  const verdict = Object.assign(document.createElement("span"), { className: isSame ? "same" : "differs" });
  say(verdict, isSame ? "same" : "differs");
  box.replaceChildren(name, Object.assign(document.createElement("strong"), { textContent: expected }), verdict);
  box.hidden = false;
}

function showProblem(message, status = 0) {
  const problem = element("problem");
  problem.hidden = message === null;
  problem.textContent = message === null ? "" : status ? `${status}: ${message}` : message;
  if (message === null) return;
  unsay(element("state"));
  unsay(element("announcement"));
  showOnPhones();
}

/** On a narrow screen the answer is below the input. */
function showOnPhones() {
  if (innerWidth < 800) element("result").scrollIntoView({ block: "start" });
}

function announce(key, values = {}) {
  say(element("announcement"), key, values);
}

function askForToken(wasWrong) {
  const dialog = element("token-dialog");
  say(element("token-hint"), wasWrong ? "tokenWrong" : "tokenHint");
  element("token").value = "";
  dialog.oncancel = (event) => event.preventDefault();
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    element("token-form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
      resolve(element("token").value.trim());
    };
  });
}

start();
