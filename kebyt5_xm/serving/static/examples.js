/** Held-out examples: a button for each, with a picture of it where it is an image. */
import { exampleFile } from "./api.js";
import { say } from "./language.js";

const EXTENSIONS = { image: "png", audio: "wav", array: "npy" };

/** Files of examples by number, each fetched once. */
const files = new Map();

/** Return an example's files, in the order of the places of its prompt. */
export function filesOf(example, media) {
  return Promise.all(
    example.files.map((number, n) => {
      const { type } = media[n];
      if (!files.has(number)) files.set(number, exampleFile(number, `${number}.${EXTENSIONS[type]}`));
      return files.get(number);
    }),
  );
}

/** Show a button for each example of a prompt; `onChoose` takes the example. */
export function showExamples(section, examples, prompt, onChoose) {
  const media = prompt.parts.filter((part) => part.type in EXTENSIONS);
  const items = examples.map((example, n) => {
    const fields = Object.values(example.fields).join(", ") || example.target;
    const button = makeButton(() => onChoose(example));
    const type = media[0]?.type;
    const key = { image: "exampleImage", audio: "exampleAudio" }[type] ?? "exampleText";
    say(button, key, { number: n + 1, fields }, "label");
    if (type === "image") showThumbnail(button, example, media);
    else if (type === "audio") button.append(`♪ ${n + 1}`);
    else button.append(fields.length > 24 ? `${fields.slice(0, 24)}…` : fields);
    if (type && Object.keys(example.fields).length) {
      const note = Object.assign(document.createElement("small"), { textContent: Object.values(example.fields).join(" ") });
      button.append(note);
    }
    return wrap(button);
  });
  fill(section, items);
}

/** Show a button for each text with a gap; `onChoose` takes the example. */
export function showGapExamples(section, examples, onChoose) {
  const items = examples.map((example, n) => {
    const start = `${example.pieces[0]}[…]${example.pieces[1]}`;
    const button = makeButton(() => onChoose(example));
    button.append(start.length > 28 ? `${start.slice(0, 28)}…` : start);
    say(button, "exampleText", { number: n + 1, fields: start }, "label");
    return wrap(button);
  });
  fill(section, items);
}

async function showThumbnail(button, example, media) {
  try {
    const [file] = await filesOf(example, media);
    const image = Object.assign(new Image(), { src: URL.createObjectURL(file), alt: "" });
    await image.decode();
    image.classList.toggle("pixels", image.naturalWidth < 128);
    button.prepend(image);
  } catch {
    // the button works without its picture, and tells why the file cannot be had
  }
}

function fill(section, items) {
  section.hidden = !items.length;
  section.querySelector("ul").replaceChildren(...items);
}

function makeButton(action) {
  return Object.assign(document.createElement("button"), { type: "button", className: "example", onclick: action });
}

function wrap(button) {
  const item = document.createElement("li");
  item.append(button);
  return item;
}
