/** Where an answer looked: its attention to the slots of each medium, drawn over the image or the spectrogram. */
import { colour, rgba } from "./colours.js";
import { percent, say } from "./language.js";
import { drawSpectrogram } from "./spectrogram.js";

const WIDTH = 640;
const SOUND_HEIGHT = 150;
const BARS_HEIGHT = 46;
const FAINTEST = 0.8;
const LINE = 5;

/** The figures of one answer. */
export class AttentionFigures {
  /**
   * @param container of the figures.
   * @param answer of the server.
   * @param views segment number -> {image} or {spectrogram}, as they were sent.
   */
  constructor(container, answer, views) {
    this.answer = answer;
    this.word = null;
    this.figures = (answer.attention ?? [])
      .filter((map) => views[map.segment])
      .map((map) => makeFigure(map, views[map.segment]));
    const heading = document.createElement("h3");
    say(heading, "looked");
    container.replaceChildren(heading, ...this.figures.map(({ element }) => element));
    container.hidden = !this.figures.length;
    this.show(null);
  }

  /** Draw the attention of a word, or of the whole answer for null; by default what is drawn already. */
  show(word = this.word) {
    this.word = word;
    for (const { map, view, canvas, caption } of this.figures) {
      const own = word === null ? map.answer : map.words[word];
      const weights = own ?? map.answer;
      const share = weights.reduce((sum, weight) => sum + weight, 0);
      if (view.image) drawOverImage(canvas, view.image, map, weights);
      else drawOverSound(canvas, view.spectrogram, map, weights);
      const isOfWord = word !== null && own !== undefined;
      const values = { word: this.answer.words[word]?.text, percent: percent(share) };
      say(caption, isOfWord ? "lookedWord" : "lookedWhole", values);
      say(canvas, view.image ? "lookedImage" : "lookedAudio", {}, "label");
    }
  }
}

function makeFigure(map, view) {
  const element = document.createElement("figure");
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  const caption = document.createElement("figcaption");
  canvas.width = WIDTH;
  canvas.height = SOUND_HEIGHT + BARS_HEIGHT;
  if (view.image) {
    const { naturalWidth: width, naturalHeight: height } = view.image;
    const scale = Math.min(WIDTH / width, WIDTH / height);
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    canvas.className = "picture";
  }
  element.append(canvas, caption);
  return { map, view, canvas, element, caption };
}

/** Draw an image, fainter where it was looked at less, and a frame around the slot that was looked at most. */
function drawOverImage(canvas, image, { shape, extents }, weights) {
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = image.naturalWidth >= 128;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const [rows, columns] = shape.length === 2 ? shape : [1, shape[0]];
  const [high, wide] = extents.length === 2 ? extents : [1, extents[0]];
  const paper = colour("--paper");
  const most = Math.max(...weights, 1e-9);
  let frame = null;
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const weight = weights[row * columns + column];
      const [x, y] = [Math.round(column * wide * canvas.width), Math.round(row * high * canvas.height)];
      const right = Math.round(Math.min(1, (column + 1) * wide) * canvas.width);
      const bottom = Math.round(Math.min(1, (row + 1) * high) * canvas.height);
      context.fillStyle = rgba(paper, FAINTEST * (1 - weight / most));
      context.fillRect(x, y, right - x, bottom - y);
      if (weight === most) frame = [x, y, right - x, bottom - y];
    }
  if (!frame) return;
  const [x, y, width, height] = frame;
  context.lineWidth = LINE;
  context.strokeStyle = rgba(colour("--accent"));
  context.strokeRect(x + LINE / 2, y + LINE / 2, width - LINE, height - LINE);
}

/** Draw a spectrogram, fainter where it was listened to less, and under it a bar for each slot. */
function drawOverSound(canvas, spectrogram, { extents }, weights) {
  const context = canvas.getContext("2d");
  const [paper, accent] = [colour("--paper"), colour("--accent")];
  const sound = new OffscreenCanvas(WIDTH, SOUND_HEIGHT);
  drawSpectrogram(sound, spectrogram, colour("--canvas-low"), colour("--canvas-high"));
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(sound, 0, 0);
  const most = Math.max(...weights, 1e-9);
  weights.forEach((weight, slot) => {
    const left = slot * extents[0] * WIDTH;
    const width = Math.min(WIDTH, (slot + 1) * extents[0] * WIDTH) - left;
    context.fillStyle = rgba(paper, FAINTEST * (1 - weight / most));
    context.fillRect(left, 0, width, SOUND_HEIGHT);
    const height = (BARS_HEIGHT - 6) * (weight / most);
    context.fillStyle = rgba(accent);
    context.fillRect(left, canvas.height - height, Math.max(1, width - (width > 4 ? 1 : 0)), height);
  });
}
