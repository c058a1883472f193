/** The place of one image, recording or array of the input: chosen, dropped, pasted, photographed or recorded. */
import { takePicture } from "./camera.js";
import { colour } from "./colours.js";
import { say, unsay } from "./language.js";
import { Recording } from "./microphone.js";
import { computeSpectrogram, drawSpectrogram } from "./spectrogram.js";

const ACCEPTED = { image: "image/*", audio: "audio/*,video/mp4,video/webm", array: ".npy" };
const DROP = { image: "dropImage", audio: "dropAudio", array: "dropArray" };

export class MediaCard {
  /**
   * @param part {type, modality} of the prompt.
   * @param limits of the server.
   * @param onProblem takes a message for readers, or null to take it back.
   * @param onChange is called when another file is given.
   */
  constructor({ type, modality }, limits, onProblem, onChange) {
    Object.assign(this, { type, modality, limits, onProblem, onChange, file: null, view: null, recording: null });
    this.element = make("div", "card");
    this.element.setAttribute("role", "group");
    say(this.element, type, {}, "label");
    this.preview = make("div", "preview");
    this.hint = make("p", "hint");
    this.buttons = make("div", "actions");
    this.element.append(this.preview, this.hint, this.buttons);
    this.chooser = Object.assign(make("input"), { type: "file", accept: ACCEPTED[type], hidden: true });
    this.chooser.onchange = () => {
      if (this.chooser.files[0]) this.set(this.chooser.files[0]);
      this.chooser.value = "";
    };
    this.choose = this.button("choose", () => this.chooser.click());
    this.buttons.append(this.chooser, this.choose);
    if (type === "image") this.buttons.append(this.button("camera", () => this.photograph()));
    if (type === "audio") this.buttons.append((this.recorder = this.button("record", () => this.record())));
    this.remover = this.button("remove", () => {
      this.set(null);
      this.choose.focus();
    });
    this.buttons.append(this.remover);
    this.listenToDrops();
    this.set(null);
  }

  /** Show another file, or none. `view` becomes what attention is drawn over: an image or a spectrogram. */
  async set(file) {
    if (this.url) URL.revokeObjectURL(this.url);
    Object.assign(this, { file, view: null, url: file && URL.createObjectURL(file) });
    this.onChange();
    this.preview.replaceChildren();
    this.element.classList.toggle("filled", file !== null);
    this.remover.hidden = file === null;
    say(this.choose, file ? "replace" : "choose");
    if (!file) {
      say(this.hint, DROP[this.type]);
      return;
    }
    unsay(this.hint);
    this.hint.textContent = file.name;
    this.viewing = this.type === "image" ? this.showImage(file) : this.type === "audio" ? this.showSound(file) : null;
    await this.viewing;
  }

  async showImage(file) {
    const image = Object.assign(new Image(), { src: this.url });
    say(image, "picture", { name: file.name }, "alt");
    this.preview.append(image);
    await image.decode().catch(() => {});
    if (this.file !== file) return;
    if (image.naturalWidth) {
      image.classList.toggle("pixels", image.naturalWidth < 128);
      this.view = { image };
    } else {
      image.remove();
      say(this.hint, "noPreview", { name: file.name });
    }
  }

  async showSound(file) {
    const player = Object.assign(make("audio"), { src: this.url, controls: true });
    this.preview.append(player);
    const spectrogram = await computeSpectrogram(file);
    if (this.file !== file) return;
    if (spectrogram) {
      this.view = { spectrogram };
      this.canvas = Object.assign(make("canvas"), { width: 640, height: 120 });
      this.canvas.setAttribute("role", "img");
      say(this.canvas, "spectrogram", {}, "label");
      this.preview.prepend(this.canvas);
      this.draw();
    } else say(this.hint, "noPreview", { name: file.name });
  }

  /** Draw again what depends on the page's colours. */
  draw() {
    if (this.view?.spectrogram)
      drawSpectrogram(this.canvas, this.view.spectrogram, colour("--canvas-low"), colour("--canvas-high"));
  }

  async photograph() {
    await this.tell(async () => {
      const picture = await takePicture();
      if (picture) await this.set(picture);
    });
  }

  /** Begin to record, or end it. */
  async record() {
    if (this.recording) {
      const recording = this.recording;
      this.recording = null;
      say(this.recorder, "record");
      this.recorder.setAttribute("aria-pressed", "false");
      await this.set(await recording.stop());
      return;
    }
    await this.tell(async () => {
      const seconds = (count) => say(this.recorder, "recordStop", { seconds: count });
      const most = largestFile(this.limits);
      this.recording = await Recording.start(this.limits.max_seconds, most, seconds, () => this.recording && this.record());
      seconds(0);
      this.recorder.setAttribute("aria-pressed", "true");
    });
  }

  /** Stop what runs when the card is taken away. */
  close() {
    this.recording?.release();
    if (this.url) URL.revokeObjectURL(this.url);
  }

  async tell(action) {
    try {
      this.onProblem(null);
      await action();
    } catch (error) {
      this.onProblem(error.message);
    }
  }

  listenToDrops() {
    const mark = (isOver) => this.element.classList.toggle("over", isOver);
    this.element.addEventListener("dragover", (event) => {
      event.preventDefault();
      mark(true);
    });
    this.element.addEventListener("dragleave", () => mark(false));
    this.element.addEventListener("drop", (event) => {
      event.preventDefault();
      mark(false);
      if (event.dataTransfer.files[0]) this.set(event.dataTransfer.files[0]);
    });
  }

  button(key, action) {
    const button = Object.assign(make("button"), { type: "button", onclick: action });
    say(button, key);
    return button;
  }
}

/** Return the kind of a file, as far as the browser and the name tell. */
export function kindOf({ name, type }) {
  if (name.endsWith(".npy")) return "array";
  return type.startsWith("image/") ? "image" : "audio";
}

/** Return the most bytes of a file in a request: base64 has four characters for three bytes. */
export function largestFile(limits) {
  return Math.floor((limits.max_bytes - 10_000) * 0.75);
}

/** Return a file as a data: URL. */
export function readAsUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

function make(name, className = "") {
  return Object.assign(document.createElement(name), { className });
}
