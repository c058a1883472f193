/** Recordings as WAV files: 16-bit samples of one channel. */

const HEADER_BYTES = 44;
const BYTES_PER_SAMPLE = 2;

/** Return a WAV file of chunks of samples from -1 to 1 at `sampleRate` Hz. */
export function encodeWav(chunks, sampleRate) {
  const count = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const bytes = count * BYTES_PER_SAMPLE;
  const view = new DataView(new ArrayBuffer(HEADER_BYTES + bytes));
  const word = (at, letters) => [...letters].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, HEADER_BYTES - 8 + bytes, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, sampleRate * BYTES_PER_SAMPLE, true);
  view.setUint16(32, BYTES_PER_SAMPLE, true);
  view.setUint16(34, 8 * BYTES_PER_SAMPLE, true);
  word(36, "data");
  view.setUint32(40, bytes, true);
  let at = HEADER_BYTES;
  for (const chunk of chunks)
    for (const sample of chunk) {
      const bounded = Math.max(-1, Math.min(1, sample));
      view.setInt16(at, Math.round(bounded * 32767), true);
      at += BYTES_PER_SAMPLE;
    }
  return new Blob([view.buffer], { type: "audio/wav" });
}
