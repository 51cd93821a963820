// From the most probable symbol of each frame to spikes, words and text. Index 0 is the blank.

/** Find the most probable symbol of each frame, and its probability, in (frames, symbols) log-probs. */
export function greedy(logProbs, frames, symbols) {
  const best = new Uint16Array(frames);
  const posterior = new Float32Array(frames);
  for (let frame = 0; frame < frames; frame++) {
    const row = logProbs.subarray(frame * symbols, (frame + 1) * symbols);
    let top = 0;
    for (let symbol = 1; symbol < symbols; symbol++) if (row[symbol] > row[top]) top = symbol;
    best[frame] = top;
    posterior[frame] = Math.exp(row[top]);
  }
  return { best, posterior };
}

/** Find the spikes: runs of frames with one most probable symbol that is not the blank. `end` is one past the last. */
export function findSpikes({ best, posterior }) {
  const spikes = [];
  for (let start = 0, end; start < best.length; start = end) {
    let peak = start;
    for (end = start + 1; end < best.length && best[end] === best[start]; end++) {
      if (posterior[end] > posterior[peak]) peak = end;
    }
    if (best[start] !== 0) spikes.push({ symbol: best[start], start, end, peak, posterior: posterior[peak] });
  }
  return spikes;
}

/** Join what each spike adds to the text; `pieces` has one entry per symbol. */
export function textOf(spikes, pieces) {
  return spikes.map((spike) => pieces[spike.symbol]).join("").trim();
}

/** Find the words: `start` of the first and `end` of the last spike with a letter of the word, in frames. */
export function wordsOf(spikes, pieces) {
  const words = [];
  let open = false;
  for (const spike of spikes) {
    for (const part of pieces[spike.symbol].split(/( +)/)) {
      if (part.startsWith(" ")) {
        open = false;
      } else if (part) {
        if (!open) words.push({ text: "", start: spike.start });
        open = true;
        const word = words[words.length - 1];
        word.text += part;
        word.end = spike.end;
      }
    }
  }
  return words;
}

/** Say on how many frames of a spike another exit has its symbol: "same" (on all), "partly" or "elsewhere". */
export function inOther(spike, best) {
  const shared = best.subarray(spike.start, spike.end).filter((symbol) => symbol === spike.symbol).length;
  return shared === spike.end - spike.start ? "same" : shared ? "partly" : "elsewhere";
}
