// The waveform and the spikes of each exit as SVG.

const PER_SECOND = 240;  // pixels per second; a frame of 20 ms is 4.8 wide
const WAVE = 70, LANE = 74, TICKS = 20, BAR = 30;  // heights in pixels; BAR is a posterior of 1
const PER_STRETCH = 2;  // pixels of waveform per point
const LABEL = 10;  // width of a symbol

/** Make an SVG element. */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Draw a path through the extreme samples of short stretches. */
function wavePath(samples, width) {
  const stretches = Math.max(1, Math.round(width / PER_STRETCH));
  const over = [], under = [];
  let loudest = 1e-4;
  for (const x of samples) loudest = Math.max(loudest, Math.abs(x));
  for (let i = 0; i < stretches; i++) {
    let high = 0, low = 0;
    const end = Math.floor((i + 1) * samples.length / stretches);
    for (let at = Math.floor(i * samples.length / stretches); at < end; at++) {
      high = Math.max(high, samples[at]);
      low = Math.min(low, samples[at]);
    }
    const point = (value) => `${((i + 0.5) * width / stretches).toFixed(1)} ${(WAVE / 2 * (1 - value / loudest)).toFixed(1)}`;
    over.push(point(high));
    under.unshift(point(low));
  }
  return `M${[...over, ...under].join(" L")} Z`;
}

/** Draw one spike. `level` raises its symbol above the one before it. */
function drawSpike(spike, frame, level) {
  const middle = (spike.peak + 0.5) * frame * PER_SECOND;
  const foot = LANE - 4, height = BAR * spike.posterior;
  const group = svg("g", {
    class: `spike ${spike.other ?? ""}`, role: "button", tabindex: -1, "aria-label": spike.label,
    "data-from": spike.start * frame, "data-to": spike.end * frame,
  });
  const title = svg("title", {}, spike.label);
  const text = svg("text", { x: middle, y: foot - height - 6 - 11 * level }, spike.shown);
  group.append(
    title,
    svg("rect", { class: "hit", x: middle - 6, width: 12, height: LANE }),
    svg("rect", { class: "run", x: spike.start * frame * PER_SECOND, y: foot, height: 4,
      width: (spike.end - spike.start) * frame * PER_SECOND }),
    svg("line", { class: "stem", x1: middle, x2: middle, y1: foot, y2: foot - height }),
    text);
  return group;
}

/** Draw the lane of one exit; arrow keys move in it. */
function drawLane(exit, top, frame) {
  const lane = svg("g", {
    class: `lane ${exit.who}`, transform: `translate(0 ${top})`, role: "group", "aria-label": `spikes of the ${exit.name}`,
  });
  lane.append(
    svg("line", { class: "base", x2: "100%", y1: LANE - 4, y2: LANE - 4 }),
    svg("text", { class: "who", x: 2, y: 14, "aria-hidden": true }, exit.name));
  const ends = [];  // right end of the last symbol on each level
  const spikes = exit.spikes.map((spike) => {
    const middle = (spike.peak + 0.5) * frame * PER_SECOND;
    const half = LABEL * spike.shown.length / 2;
    let level = ends.findIndex((end) => end <= middle - half);
    if (level < 0) level = ends.length < 3 ? ends.length : 0;
    ends[level] = middle + half;
    return drawSpike(spike, frame, level);
  });
  spikes[0]?.setAttribute("tabindex", 0);
  lane.append(...spikes);
  lane.addEventListener("keydown", (event) => {
    const place = spikes.indexOf(event.target.closest(".spike"));
    const goal = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: spikes.length - 1 }[event.key];
    if (place < 0 || !spikes[goal]) return;
    spikes[place].setAttribute("tabindex", -1);
    spikes[goal].setAttribute("tabindex", 0);
    spikes[goal].focus();
    event.preventDefault();
  });
  return lane;
}

/** Draw everything; `audio` plays from what is clicked, and moves the cursor. `frame` is in seconds. */
export function drawTimeline(samples, seconds, exits, frame, audio) {
  const width = Math.max(1, seconds * PER_SECOND), height = WAVE + 6 + LANE * exits.length + TICKS;
  const picture = svg("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "waveform and spikes",
  });
  const cursor = svg("line", { class: "cursor", y2: height });
  picture.append(
    svg("rect", { class: "ground", width: "100%", height: "100%" }),
    svg("path", { class: "wave", d: wavePath(samples, width) }),
    ...exits.map((exit, i) => drawLane(exit, WAVE + 6 + i * LANE, frame)));
  for (let tick = 0; tick <= seconds - 0.15; tick += 0.5) {
    const x = tick * PER_SECOND;
    picture.append(
      svg("text", { class: "tick", x: x + 2, y: height - 5 }, `${tick} s`),
      svg("line", { class: "tick", x1: x, x2: x, y1: height - 16, y2: height }));
  }
  picture.append(cursor);

  const play = (from) => {
    audio.currentTime = from;
    audio.play().catch(() => {});  // a format that this browser decodes but does not play
  };
  picture.addEventListener("click", (event) => {
    const spike = event.target.closest(".spike");
    const box = picture.getBoundingClientRect();
    play(spike ? Number(spike.dataset.from) : (event.clientX - box.left) / PER_SECOND);
  });
  picture.addEventListener("keydown", (event) => {
    const spike = event.target.closest(".spike");
    if (!spike || (event.key !== "Enter" && event.key !== " ")) return;
    play(Number(spike.dataset.from));
    event.preventDefault();
  });
  const spikes = [...picture.querySelectorAll(".spike")];
  const follow = () => {
    if (!picture.isConnected) return;  // another result took its place
    const time = audio.currentTime, x = time * PER_SECOND, scroller = picture.parentElement;
    cursor.setAttribute("transform", `translate(${x} 0)`);
    for (const spike of spikes) {
      const { from, to } = spike.dataset;
      spike.classList.toggle("now", !audio.paused && Number(from) <= time && time < Number(to));
    }
    if (audio.paused) return;
    if (x < scroller.scrollLeft || x > scroller.scrollLeft + scroller.clientWidth - 40) scroller.scrollLeft = x - 40;
    requestAnimationFrame(follow);
  };
  audio.onplay = audio.onpause = audio.onseeked = follow;
  return { picture, play };
}
