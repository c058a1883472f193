/** Records the microphone as a WAV file. */
import { text } from "./language.js";
import { encodeWav } from "./wav.js";

/** A recording that runs; `start` returns it, `stop` ends it and returns the file. */
export class Recording {
  /**
   * Ask for the microphone and begin.
   *
   * `onSecond` takes the whole seconds so far; `onLimit` is called at `maxSeconds` or `maxBytes` of the file. Throws an
   * Error with a message for readers if there is no microphone.
   */
  static async start(maxSeconds, maxBytes, onSecond, onLimit) {
    const recording = new Recording();
    try {
      if (!navigator.mediaDevices) throw new Error(text("insecure"));
      recording.input = await navigator.mediaDevices.getUserMedia({ audio: true });
      recording.context = new AudioContext();
      await recording.context.audioWorklet.addModule(new URL("recorder.js", import.meta.url));
    } catch (error) {
      recording.release();
      throw new Error(text("microphoneRefused", { cause: error.message }));
    }
    const rate = recording.context.sampleRate;
    const most = Math.min(maxSeconds * rate, maxBytes / 2);
    recording.node = new AudioWorkletNode(recording.context, "recorder", { numberOfOutputs: 0 });
    recording.node.port.onmessage = ({ data }) => {
      if (data === null) {
        recording.onEnd?.();
        return;
      }
      const before = Math.floor(recording.count / rate);
      recording.chunks.push(data);
      recording.count += data.length;
      const seconds = Math.floor(recording.count / rate);
      if (seconds > before) onSecond(seconds);
      if (recording.count + data.length > most) onLimit();
    };
    recording.context.createMediaStreamSource(recording.input).connect(recording.node);
    return recording;
  }

  constructor() {
    this.chunks = [];
    this.count = 0;
  }

  /** End it and return the WAV file. */
  async stop() {
    await new Promise((resolve) => {
      this.onEnd = resolve;
      this.node.port.postMessage("stop");
    });
    const file = encodeWav(this.chunks, this.context.sampleRate);
    this.release();
    return new File([file], "microphone.wav", { type: "audio/wav" });
  }

  /** Give the microphone back. */
  release() {
    this.input?.getTracks().forEach((track) => track.stop());
    this.context?.close();
  }
}
