import { AudioError, decode, record } from "./audio.js";
import { findSpikes, inOther, textOf, wordsOf } from "./ctc.js";
import { drawTimeline } from "./timeline.js";

const LONGEST = 30;  // seconds; time and memory grow with the square
const OTHER = {
  same: "has it on the same frames",
  partly: "has it on some of these frames",
  elsewhere: "does not have it on these frames",
};
const at = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
let about = null;  // models.json, once the models are loaded
let recording = null;
let busy = true;

/** Make an HTML element. */
function html(tag, attributes, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const quiet = (text) => text.replace(/\.?$/, ".");

function say(status, error = "") {
  at("status").textContent = status;
  at("error").textContent = error;
  at("error").hidden = !error;
}

function setBusy(now) {
  busy = now;
  at("file").disabled = now || recording !== null;
  at("record").disabled = now;
  document.body.setAttribute("aria-busy", now);
}

/** Send samples to the worker, and wait for its answer. */
function ask(samples) {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.error ? reject(new AudioError(data.error)) : resolve(data));
    worker.onerror = () => reject(new AudioError("The model ended with an error: load the page again."));
    if (samples) worker.postMessage(samples);
  });
}

/** Transcribe a file or a recording, and show the result. */
async function transcribe(blob, name) {
  if (busy) return;
  setBusy(true);
  say("Transcribing …");
  try {
    const samples = await decode(blob, about.sample_rate, name);
    const seconds = samples.length / about.sample_rate;
    if (samples.length < about.shortest) {
      throw new AudioError(`${name} has ${seconds.toFixed(3)} s, the model needs ${(about.shortest / about.sample_rate).toFixed(3)} s: choose longer audio.`);
    }
    if (seconds > LONGEST) {
      throw new AudioError(`${name} has ${seconds.toFixed(1)} s, this page takes up to ${LONGEST} s: cut it, or use python -m fairseq_skd.transcribe.`);
    }
    const { exits } = await ask(samples);
    show(blob, name, samples, seconds, exits);
    say(`${name} is transcribed.`);
  } catch (error) {
    if (!(error instanceof AudioError)) console.error(error);
    at("result").hidden = true;
    say("", error instanceof AudioError ? error.message : `This page has a fault (${error.message}).`);
  }
  setBusy(false);
}

function show(blob, name, samples, seconds, answers) {
  const frame = about.frame_step / about.sample_rate;
  const exits = about.exits.map((exit, i) => ({
    ...exit, ...answers[i], spikes: findSpikes(answers[i]),
    who: exit.name === "teacher" || i < about.exits.length - 1 ? "teacher" : "student",  // the class of its color
  }));
  exits.forEach((exit, i) => {
    const other = exits[1 - i];
    for (const spike of exit.spikes) {
      const piece = about.pieces[spike.symbol];
      spike.shown = piece.trim() || "␣";
      Object.assign(spike, { from: spike.start * frame, to: spike.end * frame, at: (spike.peak + 0.5) * frame });
      spike.label = `${piece.trim() || "word boundary"} at ${spike.at.toFixed(2)} s, posterior ${spike.posterior.toFixed(2)}`;
      if (other) {
        spike.other = inOther(spike, other.best);
        spike.label += `; the ${other.name} ${OTHER[spike.other]}`;
      }
    }
  });
  at("name").textContent = `${name}, ${seconds.toFixed(1)} s`;
  at("texts").replaceChildren(...exits.map((exit) => html("div", { className: `text ${exit.who}` },
    html("p", { className: "who" }, exit.name),
    html("p", { className: "words" }, textOf(exit.spikes, about.pieces) || "(no words)"),
    html("p", { className: "took" },
      `${(exit.milliseconds / 1000).toFixed(2)} s, ${(exit.milliseconds / 1000 / seconds).toFixed(3)} times the length of the audio`))));

  const audio = at("audio");
  URL.revokeObjectURL(audio.src);
  audio.src = URL.createObjectURL(blob);
  at("result").hidden = false;
  const { picture, play } = drawTimeline(samples, seconds, exits, audio, at("timeline").clientWidth);
  at("timeline").replaceChildren(picture);
  at("legend").hidden = at("agreement").hidden = exits.length < 2;
  if (exits.length > 1) {
    const same = exits[0].spikes.filter((spike) => spike.other === "same").length;
    at("agreement").textContent =
      `${same} of the ${exits[0].spikes.length} spikes of the ${exits[0].name} have the same symbol in the ${exits[1].name} on all their frames.`;
  }
  at("words").replaceChildren(...exits.flatMap((exit) => {
    const words = wordsOf(exit.spikes, about.pieces).map((word) => {
      const start = word.start * frame;
      const button = html("button", { type: "button", className: "word", title: `play from ${start.toFixed(2)} s` },
        `${word.text} `, html("small", {}, `${start.toFixed(2)} s`));
      button.addEventListener("click", () => play(start));
      return html("li", {}, button);
    });
    const list = html("ol", {}, ...words);
    return words.length ? [html("div", { className: exit.who }, html("h3", {}, `Words of the ${exit.name}`), list)] : [];
  }));
}

async function toggleRecording() {
  if (recording) return recording.stop();
  if (busy) return;
  setBusy(true);
  try {
    say("Waiting for the microphone …");
    recording = await record(LONGEST);
  } catch (error) {
    say("", error.message);
    return setBusy(false);
  }
  setBusy(false);
  at("record").textContent = "Stop";
  at("record").setAttribute("aria-pressed", true);
  say("Recording.");
  const begins = performance.now();
  const clock = setInterval(() => {
    at("elapsed").textContent = `${((performance.now() - begins) / 1000).toFixed(1)} s`;
  }, 100);
  const blob = await recording.done;
  clearInterval(clock);
  recording = null;
  at("record").textContent = "Record";
  at("record").removeAttribute("aria-pressed");
  at("elapsed").textContent = "";
  await transcribe(blob, "The recording");
}

at("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) transcribe(file, file.name);
  event.target.value = "";  // the same file can be chosen again
});
at("record").addEventListener("click", toggleRecording);
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file && !recording) transcribe(file, file.name);
});

at("longest").textContent = LONGEST;
ask(null).then((data) => {
  about = data.about;
  at("models").replaceChildren(...about.exits.map((exit) => html("li", {},
    `${exit.name}: ${(exit.parameters / 1e6).toFixed(1)} million parameters, ${megabytes(exit.bytes)} in 8 bits`)));
  say("Ready.");
  setBusy(false);
}, (error) => say("", `The model cannot be loaded: ${quiet(error.message)}`));
