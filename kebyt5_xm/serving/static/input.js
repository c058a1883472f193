/** The input: which prompt is chosen, its fields, its media, and the texts that people edit. */
import { onSchemeChange } from "./colours.js";
import { kindOf, largestFile, MediaCard, readAsUrl } from "./media_card.js";
import { parseGaps } from "./gaps.js";
import { number, say, text } from "./language.js";
import { parsePrompt, places, promptText } from "./prompt.js";

const element = (id) => document.getElementById(id);

export class Input {
  /**
   * @param onProblem takes a message for readers, or null to take it back.
   * @param onChange is called when another input is given.
   */
  constructor(description, onProblem, onChange) {
    Object.assign(this, { description, onProblem, onChange, prompt: null, cards: [], fields: {} });
    element("prompt").addEventListener("input", () => {
      this.showCards();
      onChange();
    });
    onSchemeChange(() => this.cards.forEach((card) => card.draw()));
    document.addEventListener("paste", (event) => this.take(event, event.clipboardData));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => this.take(event, event.dataTransfer));
  }

  /** Show a prompt, or the text with gaps for null. Files stay where the new prompt has places for them. */
  choose(prompt) {
    this.prompt = prompt;
    element("prompt-part").hidden = prompt === null;
    element("gaps-part").hidden = prompt !== null;
    if (prompt === null) return;
    const fields = prompt.parts.filter((part) => part.type === "field");
    this.fields = Object.fromEntries(fields.map(({ name, values }) => [name, this.fields[name] ?? values[0] ?? ""]));
    const unique = fields.filter(({ name }, n) => fields.findIndex((other) => other.name === name) === n);
    element("fields").replaceChildren(...unique.map((field) => this.fieldElement(field)));
    const { modalities } = this.description;
    if (Object.keys(modalities).length) say(element("prompt-hint"), "promptHint", { places: places(modalities) });
    else say(element("prompt-hint"), "promptHintText");
    this.writePrompt();
  }

  /** Fill in an example: its fields and its files. */
  async fill(example, files) {
    Object.assign(this.fields, example.fields);
    for (const control of element("fields").querySelectorAll("[name]")) control.value = this.fields[control.name];
    this.writePrompt();
    await Promise.all(files.map((file, n) => this.cards[n]?.set(file)));
  }

  /** Return the segments of the request and the views of its media by segment. Throws an Error for readers. */
  async segments() {
    if (this.prompt === null) {
      const { pieces } = parseGaps(element("gap-text").value);
      if (pieces.length < 2) throw new Error(text("noGap"));
      return { segments: [{ type: "gaps", pieces }], views: {} };
    }
    const pieces = parsePrompt(element("prompt").value, this.description.modalities);
    this.checkSizes();
    const cards = [...this.cards];
    const views = {};
    const segments = [];
    for (const piece of pieces) {
      if (piece.type === "text") segments.push(piece);
      else {
        const card = cards.shift();
        if (card?.recording) await card.record();
        if (!card?.file) throw new Error(text("missing", { modality: piece.modality }));
        await card.viewing;
        if (card.view) views[segments.length] = card.view;
        segments.push({ ...piece, data: await readAsUrl(card.file) });
      }
    }
    return { segments, views };
  }

  checkSizes() {
    const most = largestFile(this.description.limits);
    let left = most;
    for (const { file } of this.cards) {
      left -= file?.size ?? 0;
      if (left < 0) throw new Error(text("tooLarge", { name: file.name, size: number(file.size), most: number(most) }));
    }
  }

  writePrompt() {
    element("prompt").value = promptText(this.prompt.parts, this.fields);
    this.showCards();
  }

  /** Keep a card for every place of the edited prompt. */
  showCards() {
    let pieces;
    try {
      pieces = parsePrompt(element("prompt").value, this.description.modalities);
      element("prompt").removeAttribute("aria-invalid");
    } catch {
      element("prompt").setAttribute("aria-invalid", "true"); // said when it is sent; a place may be half typed
      return;
    }
    const unused = [...this.cards];
    const wanted = pieces.filter((piece) => piece.type !== "text");
    this.cards = wanted.map((piece) => {
      const found = unused.findIndex((card) => card.modality === piece.modality);
      if (found >= 0) return unused.splice(found, 1)[0];
      return new MediaCard(piece, this.description.limits, this.onProblem, this.onChange);
    });
    unused.forEach((card) => card.close());
    const shown = element("media");
    const elements = this.cards.map((card) => card.element);
    if (elements.length !== shown.children.length || elements.some((one, n) => one !== shown.children[n]))
      shown.replaceChildren(...elements);
  }

  fieldElement({ name, values }) {
    const box = document.createElement("div");
    const label = Object.assign(document.createElement("label"), { textContent: name, htmlFor: `field-${name}` });
    const control = document.createElement(values.length ? "select" : "textarea");
    if (values.length) control.append(...values.map((value) => new Option(value, value)));
    else control.rows = 2;
    Object.assign(control, { id: `field-${name}`, name, value: this.fields[name] });
    control.addEventListener("input", () => {
      this.fields[name] = control.value;
      this.writePrompt();
      this.onChange();
    });
    box.append(label, control);
    return box;
  }

  /** Put a file that was pasted, or dropped beside the places, into the first place of its kind, if there is one. */
  take(event, data) {
    const file = data?.files[0];
    if (!file || event.defaultPrevented) return;
    event.preventDefault(); // a browser would leave the page to show the file
    const fitting = this.prompt ? this.cards.filter((card) => card.type === kindOf(file)) : [];
    (fitting.find((card) => !card.file) ?? fitting[0])?.set(file);
  }
}
