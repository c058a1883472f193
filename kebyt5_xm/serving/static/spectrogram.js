/** Spectrograms of recordings, computed in the page. */

const SAMPLE_RATE = 16000; // Hz, of which speech needs no more
const SIZE = 512; // samples of a window, 32 ms
const BANDS = 80;
const MAX_COLUMNS = 640;
const RANGE_DB = 70;

/**
 * Return a spectrogram {columns, bands, levels, seconds} of a file, or null if the browser cannot decode it.
 *
 * `levels` [columns * bands] are from 0, silence, to 1, the loudest; the lowest band of a column comes first.
 */
export async function computeSpectrogram(file) {
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, SAMPLE_RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    return null;
  }
  const samples = mono(sound);
  const columns = Math.max(1, Math.min(MAX_COLUMNS, Math.ceil(samples.length / (SIZE / 4))));
  const edges = bandEdges();
  const levels = new Float32Array(columns * BANDS);
  for (let column = 0; column < columns; column++) {
    const middle = ((column + 0.5) / columns) * samples.length;
    const power = powerSpectrum(samples, Math.round(middle - SIZE / 2));
    for (let band = 0; band < BANDS; band++) {
      let sum = 1e-10;
      for (let bin = edges[band]; bin < Math.max(edges[band] + 1, edges[band + 1]); bin++) sum += power[bin];
      levels[column * BANDS + band] = 10 * Math.log10(sum);
    }
  }
  const loudest = levels.reduce((most, level) => Math.max(most, level), -Infinity);
  for (let n = 0; n < levels.length; n++) levels[n] = Math.max(0, 1 + (levels[n] - loudest) / RANGE_DB);
  return { columns, bands: BANDS, levels, seconds: sound.duration };
}

/** Draw a spectrogram over a whole canvas, from the colour of silence to that of the loudest: [red, green, blue]. */
export function drawSpectrogram(canvas, { columns, bands, levels }, silent, loud) {
  const image = new ImageData(columns, bands);
  for (let column = 0; column < columns; column++)
    for (let band = 0; band < bands; band++) {
      const level = levels[column * bands + band];
      const at = 4 * ((bands - 1 - band) * columns + column);
      for (let colour = 0; colour < 3; colour++)
        image.data[at + colour] = silent[colour] + (loud[colour] - silent[colour]) * level;
      image.data[at + 3] = 255;
    }
  const small = new OffscreenCanvas(columns, bands);
  small.getContext("2d").putImageData(image, 0, 0);
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
}

function mono(sound) {
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const own = sound.getChannelData(channel);
    for (let n = 0; n < samples.length; n++) samples[n] += own[n] / sound.numberOfChannels;
  }
  return samples;
}

/** Return the bins at which bands begin and end, evenly spaced on the mel scale (2595 log10(1 + f / 700)). */
function bandEdges() {
  const top = 2595 * Math.log10(1 + SAMPLE_RATE / 2 / 700);
  return Array.from({ length: BANDS + 1 }, (_, n) => {
    const frequency = 700 * (10 ** ((top * n) / BANDS / 2595) - 1);
    return Math.min(SIZE / 2 - 1, Math.round((frequency / SAMPLE_RATE) * SIZE));
  });
}

/** Return the power of the frequencies of one window with Hann's weights, from sample `start` on. */
function powerSpectrum(samples, start) {
  const real = new Float32Array(SIZE);
  const imaginary = new Float32Array(SIZE);
  for (let n = 0; n < SIZE; n++)
    real[n] = (samples[start + n] ?? 0) * (0.5 - 0.5 * Math.cos((2 * Math.PI * n) / SIZE));
  transform(real, imaginary);
  return Float32Array.from({ length: SIZE / 2 }, (_, n) => real[n] ** 2 + imaginary[n] ** 2);
}

/** The fast Fourier transform in place (Cooley and Tukey 1965, radix 2). */
function transform(real, imaginary) {
  const size = real.length;
  for (let n = 1, reversed = 0; n < size; n++) {
    let bit = size >> 1;
    for (; reversed & bit; bit >>= 1) reversed ^= bit;
    reversed ^= bit;
    if (n < reversed) {
      [real[n], real[reversed]] = [real[reversed], real[n]];
      [imaginary[n], imaginary[reversed]] = [imaginary[reversed], imaginary[n]];
    }
  }
  for (let length = 2; length <= size; length *= 2) {
    const half = length / 2;
    for (let k = 0; k < half; k++) {
      const [cosine, sine] = [Math.cos((-2 * Math.PI * k) / length), Math.sin((-2 * Math.PI * k) / length)];
      for (let a = k; a < size; a += length) {
        const b = a + half;
        const x = real[b] * cosine - imaginary[b] * sine;
        const y = real[b] * sine + imaginary[b] * cosine;
        real[b] = real[a] - x;
        imaginary[b] = imaginary[a] - y;
        real[a] += x;
        imaginary[a] += y;
      }
    }
  }
}
