"use strict";
const players = [...document.querySelectorAll(".player")];

for (const player of players) {
  const audio = player.querySelector("audio");
  const timeline = player.querySelector(".timeline");
  const cursor = player.querySelector(".cursor");
  const scroller = timeline.parentElement;
  const perSecond = Number(player.dataset.pixelsPerSecond);
  const spikes = [...player.querySelectorAll(".spike")].map((element) => ({
    element, from: Number(element.dataset.from), to: Number(element.dataset.to),
  }));

  const show = () => {
    const time = audio.currentTime;
    const x = time * perSecond;
    cursor.setAttribute("transform", `translate(${x} 0)`);
    const playing = !audio.paused;
    for (const { element, from, to } of spikes) {
      element.classList.toggle("now", playing && from <= time && time < to);
    }
    const outside = x < scroller.scrollLeft || x > scroller.scrollLeft + scroller.clientWidth - 40;
    if (playing && outside) scroller.scrollLeft = x - 40;
  };
  const follow = () => {
    show();
    if (!audio.paused) requestAnimationFrame(follow);
  };
  const playFrom = (seconds) => {
    for (const other of players) {
      if (other !== player) other.querySelector("audio").pause();
    }
    audio.currentTime = seconds;
    audio.play().catch(() => {});  // some browsers want a click first
  };
  audio.addEventListener("play", follow);
  for (const event of ["pause", "ended", "seeked"]) audio.addEventListener(event, show);

  timeline.addEventListener("click", (event) => {
    const spike = event.target.closest(".spike");
    if (spike) {
      playFrom(Number(spike.dataset.from));
    } else {
      const box = timeline.getBoundingClientRect();
      playFrom((event.clientX - box.left) / box.width * (timeline.viewBox.baseVal.width / perSecond));
    }
  });

  for (const lane of player.querySelectorAll(".lane")) {
    const own = [...lane.querySelectorAll(".spike")];
    lane.addEventListener("keydown", (event) => {
      const place = own.indexOf(event.target.closest(".spike"));
      if (place < 0) return;
      const goal = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: own.length - 1 }[event.key];
      if (event.key === "Enter" || event.key === " ") {
        playFrom(Number(own[place].dataset.from));
      } else if (own[goal]) {
        own[place].setAttribute("tabindex", "-1");
        own[goal].setAttribute("tabindex", "0");
        own[goal].focus();
      } else {
        return;
      }
      event.preventDefault();
    });
  }
}
