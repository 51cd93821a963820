// Audio of a file or of the microphone, at the model's sampling rate.

const LARGEST = 64e6;  // bytes; decoding needs several times as much memory

/** A mistake that the page shows in one sentence. */
export class AudioError extends Error {}

/** Decode a file to samples in [-1, 1] at `rate` Hz, the mean of its channels. */
export async function decode(blob, rate, name) {
  if (blob.size === 0) throw new AudioError(`${name} is empty: choose another file.`);
  if (blob.size > LARGEST) {
    throw new AudioError(`${name} has ${(blob.size / 1e6).toFixed(0)} MB, this page reads up to ${LARGEST / 1e6} MB: cut it.`);
  }
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await blob.arrayBuffer());  // resamples
  } catch {
    throw new AudioError(`${name} cannot be decoded by this browser: convert it to WAV, FLAC or MP3.`);
  }
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => asTrained(buffer.getChannelData(i)));
  const samples = new Float32Array(buffer.length);
  for (const channel of channels) for (let i = 0; i < samples.length; i++) samples[i] += channel[i] / channels.length;
  return samples;
}

/**
 * Scale 16-bit samples as in training, by 1/32768. Chromium scales those above zero by 1/32767.
 * Samples that are no multiples of 1/32767 come from another format or were resampled: they stay.
 */
function asTrained(samples) {
  for (const sample of samples) {
    const number = sample * 32767;
    if (number > 0 && Math.abs(number - Math.round(number)) > 1 / 256) return samples;  // float32 rounds by less
  }
  return samples.map((sample) => sample > 0 ? Math.round(sample * 32767) / 32768 : sample);
}

/** Begin to record; `stop()` ends it, `done` is the recording. It ends by itself after `longest` seconds. */
export async function record(longest) {
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    throw new AudioError("This browser gives no microphone to this page: open it at localhost or over https.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false },
    });
  } catch (error) {
    throw new AudioError(
      error.name === "NotAllowedError"
        ? "The microphone is not allowed: allow it in the browser's settings for this page."
        : "There is no microphone that can be used: connect one, or choose a file.");
  }
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  const done = new Promise((resolve) => {
    recorder.addEventListener("stop", () => {
      for (const track of stream.getTracks()) track.stop();
      resolve(new Blob(parts, { type: recorder.mimeType }));
    });
  });
  const stop = () => { if (recorder.state !== "inactive") recorder.stop(); };
  recorder.start();
  setTimeout(stop, longest * 1000);
  return { stop, done };
}
