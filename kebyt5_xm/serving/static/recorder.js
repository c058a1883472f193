/** Runs on the browser's audio thread: sends the mean of the channels to the page, in chunks of a tenth of a second. */

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Float32Array(Math.round(sampleRate / 10));
    this.filled = 0;
    this.isDone = false;
    this.port.onmessage = () => {
      this.send();
      this.isDone = true;
      this.port.postMessage(null);
    };
  }

  process([channels]) {
    if (this.isDone) return false;
    const length = channels[0]?.length ?? 0;
    for (let n = 0; n < length; n++) {
      let sum = 0;
      for (const channel of channels) sum += channel[n];
      this.chunk[this.filled++] = sum / channels.length;
      if (this.filled === this.chunk.length) this.send();
    }
    return true;
  }

  send() {
    this.port.postMessage(this.chunk.slice(0, this.filled));
    this.filled = 0;
  }
}

registerProcessor("recorder", Recorder);
