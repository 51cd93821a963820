// Runs the models beside the page, so that the page stays responsive.
import * as ort from "./runtime/ort.js";
import { greedy } from "./ctc.js";

async function read(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} cannot be loaded (status ${answer.status}): export the folder again.`);
  return answer;
}

async function load() {
  // One thread: more need shared memory, and so headers that a plain file server does not send.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await (await read("runtime/ort.wasm")).arrayBuffer();  // whatever type the server states
  ort.env.logLevel = "error";
  const about = await (await read("models.json")).json();
  const sessions = [];
  for (const exit of about.exits) {
    const model = new Uint8Array(await (await read(exit.file)).arrayBuffer());
    sessions.push(await ort.InferenceSession.create(model, { executionProviders: ["wasm"], logSeverityLevel: 3 }));
  }
  for (const session of sessions) await run(session, new Float32Array(about.sample_rate));  // the first run is slower
  return { about, sessions };
}

/** Run one model on samples in [-1, 1]; the model scales them itself. */
async function run(session, samples) {
  const begins = performance.now();
  const out = await session.run({
    x: new ort.Tensor("float32", samples, [1, samples.length]),
    lengths: new ort.Tensor("int64", BigInt64Array.of(BigInt(samples.length)), [1]),
  });
  const milliseconds = performance.now() - begins;
  const symbols = out.log_probs.dims[2];
  return { ...greedy(out.log_probs.data, Number(out.frame_lengths.data[0]), symbols), milliseconds };
}

const loading = load();
loading.then(({ about }) => postMessage({ about }), (error) => postMessage({ error: error.message ?? String(error) }));

addEventListener("message", async ({ data }) => {
  const { sessions } = await loading;
  try {
    const exits = [];
    for (const session of sessions) exits.push(await run(session, data));
    postMessage({ exits });
  } catch (error) {
    postMessage({ error: `The model cannot run on this audio (${error.message ?? error}).` });
  }
});
