// The waveform and the spikes of each exit as SVG.

const NARROWEST = 240, WIDEST = 480;  // pixels per second; a frame of 20 ms is then 4.8 to 9.6 wide
const MARGIN = 8;  // left and right of the audio, for the symbol of the first and last frame
const WAVE = 70, LANE = 92, TICKS = 20, BAR = 30;  // heights in pixels; BAR is a posterior of 1
const LEVELS = 3;  // rows of symbols
const PER_STRETCH = 2;  // pixels of waveform per point
const LABEL = 10;  // width of a symbol

/** Make an SVG element. */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Draw a path through the extreme samples of short stretches, `width` pixels long. */
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
    const point = (value) => `${(MARGIN + (i + 0.5) * width / stretches).toFixed(1)} ${(WAVE / 2 * (1 - value / loudest)).toFixed(1)}`;
    over.push(point(high));
    under.unshift(point(low));
  }
  return `M${[...over, ...under].join(" L")} Z`;
}

/** Draw one spike; `x` turns seconds into pixels, `level` raises its symbol above the one before it. */
function drawSpike(spike, x, level) {
  const foot = LANE - 4;
  const group = svg("g", {
    class: `spike ${spike.other ?? ""}`, role: "button", tabindex: -1, "aria-label": spike.label,
    "data-from": spike.from, "data-to": spike.to,
  });
  group.append(
    svg("title", {}, spike.label),
    svg("rect", { class: "hit", x: x(spike.at) - 6, width: 12, height: LANE }),
    svg("rect", { class: "run", x: x(spike.from), y: foot, width: x(spike.to) - x(spike.from), height: 4 }),
    svg("line", { class: "stem", x1: x(spike.at), x2: x(spike.at), y1: foot, y2: foot - BAR * spike.posterior }),
    svg("text", { x: x(spike.at), y: foot - BAR - 6 - 11 * level }, spike.shown));
  return group;
}

/** Draw the lane of one exit; arrow keys move in it. */
function drawLane(exit, top, x) {
  const lane = svg("g", {
    class: `lane ${exit.who}`, transform: `translate(0 ${top})`, role: "group", "aria-label": `spikes of the ${exit.name}`,
  });
  lane.append(
    svg("line", { class: "base", x2: "100%", y1: LANE - 4, y2: LANE - 4 }),
    svg("text", { class: "who", x: MARGIN, y: 12, "aria-hidden": true }, exit.name));
  const ends = [];  // right end of the last symbol on each level
  const spikes = exit.spikes.map((spike) => {
    const half = LABEL * spike.shown.length / 2;
    let level = ends.findIndex((end) => end <= x(spike.at) - half);
    if (level < 0) level = ends.length < LEVELS ? ends.length : 0;
    ends[level] = x(spike.at) + half;
    return drawSpike(spike, x, level);
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

/**
 * Draw everything. `audio` plays from what is clicked, and moves the cursor. Each exit has a `name`, a class
 * `who`, and `spikes` with `from`, `to` and `at` (the peak) in seconds. `room` is the width to fill, in pixels.
 */
export function drawTimeline(samples, seconds, exits, audio, room) {
  const perSecond = Math.min(WIDEST, Math.max(NARROWEST, (room - 2 * MARGIN) / seconds));
  const x = (time) => MARGIN + time * perSecond;
  const width = x(seconds) + MARGIN, height = WAVE + 6 + LANE * exits.length + TICKS;
  const picture = svg("svg", {
    width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "waveform and spikes",
  });
  const cursor = svg("line", { class: "cursor", y2: height, transform: `translate(${MARGIN} 0)` });
  picture.append(
    svg("rect", { class: "ground", width: "100%", height: "100%" }),
    svg("path", { class: "wave", d: wavePath(samples, seconds * perSecond) }),
    ...exits.map((exit, i) => drawLane(exit, WAVE + 6 + i * LANE, x)));
  for (let tick = 0; tick <= seconds - 0.15; tick += 0.5) {
    picture.append(
      svg("text", { class: "tick", x: x(tick) + 3, y: height - 5 }, `${tick} s`),
      svg("line", { class: "tick", x1: x(tick), x2: x(tick), y1: height - 16, y2: height }));
  }
  picture.append(cursor);

  const play = (from) => {
    audio.currentTime = from;
    audio.play().catch(() => {});  // a format that this browser decodes but does not play
  };
  picture.addEventListener("click", (event) => {
    const spike = event.target.closest(".spike");
    const box = picture.getBoundingClientRect();
    play(spike ? Number(spike.dataset.from) : Math.max(0, (event.clientX - box.left - MARGIN) / perSecond));
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
    const time = audio.currentTime, place = x(time), scroller = picture.parentElement;
    cursor.setAttribute("transform", `translate(${place} 0)`);
    for (const spike of spikes) {
      const { from, to } = spike.dataset;
      spike.classList.toggle("now", !audio.paused && Number(from) <= time && time < Number(to));
    }
    if (audio.paused) return;
    const { scrollLeft, clientWidth } = scroller;
    if (place < scrollLeft || place > scrollLeft + clientWidth - 40) scroller.scrollLeft = place - 40;
    requestAnimationFrame(follow);
  };
  audio.onplay = audio.onpause = audio.onseeked = follow;
  return { picture, play };
}
