/* Two videos and their difference on one clock. Frame n is shown at (n + 0.5) / fps, its middle. */

class Player {
  constructor(video) {
    const wanted = (name, value) => (video.checks.find((check) => check.name === name) || { limit: `= ${value}` }).limit.slice(2);
    this.count = Math.max(1, Math.min(video.frames, Number(wanted("frame count", video.frames))));
    this.rates = [wanted("frames per second", video.fps), video.fps].map((text) => {
      const [a, b] = text.split("/").map(Number);
      return a / (b || 1);
    });
    this.paths = [video.reference, video.candidate];
    this.target = 0;
    this.playing = false;
    this.shown = [null, null];
    this.listeners = [];
    this.build(video);
  }

  build(video) {
    this.screens = this.paths.map((path) => screen(path));
    this.canvas = el("canvas");
    this.slider = Object.assign(el("input"), { type: "range", min: 0, max: this.count - 1, step: 1, value: 0, ariaLabel: "frame" });
    this.slider.oninput = () => this.seek(Number(this.slider.value));
    this.button = el("button.main", "Play");
    this.button.onclick = () => this.toggle();
    this.loop = Object.assign(el("input"), { type: "checkbox", checked: true });
    this.speed = el("select", ...[1, 0.5, 0.25].map((speed) => Object.assign(el("option", `${speed}\u00d7`), { value: speed })));
    this.speed.ariaLabel = "speed";
    this.place = el("output");
    const step = (label, by, title) => {
      const button = Object.assign(el("button", label), { title, ariaLabel: title });
      button.onclick = () => this.seek(this.frame + by);
      return button;
    };
    const figures = [...this.screens, this.canvas].map((each, i) => el("figure", each,
      el("figcaption", ["reference", "candidate", "difference \u00d7 8"][i])));
    this.screens.forEach((each, i) => {
      each.onloadedmetadata = () => { each.currentTime = this.time(this.target, i); };
      each.onseeked = () => this.draw();
      each.onerror = () => figures[i].lastChild.replaceChildren(el("span.fail.name", `this browser cannot play ${this.paths[i]}`));
      this.watch(each, i);
    });
    this.element = el("div", el(video.size[0] > video.size[1] ? "div.screens.broad" : "div.screens", ...figures),
      el("div.controls", this.button, step("\u2039", -1, "one frame back"), step("\u203a", 1, "one frame on"), this.slider,
        this.place, this.speed, el("label", this.loop, "loop")));
    this.tell();
  }

  /* Which frame is on each screen, where the browser tells. */
  watch(each, i) {
    if (!each.requestVideoFrameCallback) return;
    const note = (_, frame) => {
      this.shown[i] = Math.round(frame.mediaTime * this.rates[i]);
      this.draw();
      each.requestVideoFrameCallback(note);
    };
    each.requestVideoFrameCallback(note);
  }

  time(frame, i) { return (frame + 0.5) / this.rates[i]; }

  get frame() {
    return this.playing ? within(Math.floor(this.screens[0].currentTime * this.rates[0]), 0, this.count - 1) : this.target;
  }

  seek(frame) {
    this.rest();
    this.place_at(frame);
  }

  place_at(frame) {
    this.target = within(frame, 0, this.count - 1);
    this.screens.forEach((each, i) => { each.currentTime = this.time(this.target, i); });
    this.tell();
  }

  rest() {
    this.target = this.frame;
    this.playing = false;
    this.screens.forEach((each) => each.pause());
    this.button.textContent = "Play";
  }

  toggle() {
    if (this.playing) this.seek(this.frame);
    else this.play();
  }

  play() {
    if (this.target >= this.count - 1) this.place_at(0);
    this.playing = true;
    this.button.textContent = "Pause";
    this.screens.forEach((each) => each.play().catch(() => this.playing && this.seek(this.target)));
    const tick = () => {
      if (!this.playing) return;
      this.follow();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  /* The candidate keeps to the reference's time: a little faster or slower, or by a jump if it is a frame off. */
  follow() {
    const [first, second] = this.screens, speed = Number(this.speed.value), now = first.currentTime * this.rates[0];
    if (first.ended || second.ended || now >= this.count) {
      if (!this.loop.checked) return this.seek(this.count - 1);
      this.place_at(0);
      this.screens.forEach((each) => each.play().catch(() => {}));
      return undefined;
    }
    const late = second.currentTime * this.rates[1] - now;
    if (Math.abs(late) > 1 && !second.seeking && !first.seeking) second.currentTime = now / this.rates[1];
    const nudge = Math.abs(late) > 0.15 ? 1 - Math.sign(late) * 0.1 : 1;
    const paces = [speed, (speed * nudge * this.rates[0]) / this.rates[1]];
    this.screens.forEach((each, i) => { if (each.playbackRate !== paces[i]) each.playbackRate = paces[i]; });
    if (!first.requestVideoFrameCallback) this.draw();
    this.tell();
    return undefined;
  }

  /* What the screens show, or null if that is not the same frame. A screen may already be a frame further than it told
     when it is drawn; a VideoFrame knows which one it is. */
  pair() {
    if (!this.playing) return this.screens;
    if (this.shown[0] !== this.shown[1]) return null;
    if (!window.VideoFrame || linked) return this.screens;
    const frames = this.screens.map((each) => new VideoFrame(each));
    const [a, b] = frames.map((frame, i) => Math.round((frame.timestamp * this.rates[i]) / 1e6));
    if (a === b) return frames;
    frames.forEach((frame) => frame.close());
    return null;
  }

  /* The difference, eight times: added to itself three times over. */
  draw() {
    const [first, second] = this.screens;
    const pair = first.readyState >= 2 && second.readyState >= 2 ? this.pair() : null;
    if (!pair) return;
    const { videoWidth: width, videoHeight: height } = first, pen = this.canvas.getContext("2d");
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    ["copy", "difference"].forEach((operation, i) => {
      pen.globalCompositeOperation = operation;
      pen.drawImage(pair[i], 0, 0, width, height);
      if (pair[i].close) pair[i].close();
    });
    pen.globalCompositeOperation = "lighter";
    for (let i = 0; i < 3; i += 1) pen.drawImage(this.canvas, 0, 0);
  }

  tell() {
    const frame = this.frame;
    this.slider.value = frame;
    this.place.textContent = `frame ${frame + 1} of ${this.count}`;
    this.listeners.forEach((listener) => listener(frame));
  }

  /* Arrow keys step from anywhere in a section; Space plays where it does nothing else. */
  keys(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key], at = event.target;
    if (event.altKey || event.ctrlKey || event.metaKey || at === this.speed) return;
    if (by) this.seek(this.frame + by * (event.shiftKey ? 10 : 1));
    else if (event.key === " " && !at.closest("button, summary, input[type=checkbox]")) this.toggle();
    else return;
    event.preventDefault();
  }
}

/* A video element for a path: from the page itself where the video is in it. */
function screen(path) {
  const address = videos[path] || "", video = Object.assign(el("video"), { muted: true, playsInline: true, preload: "auto" });
  const [, kind, text] = address.match(/^data:([^;]+);base64,(.*)$/s) || [];
  const bytes = kind && Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  video.src = kind ? URL.createObjectURL(new Blob([bytes], { type: kind })) : address;
  return video;
}

/* A judged video's figures frame by frame. gate: the least cosine. */
function strips(video, gate, player) {
  const each = video.per_frame || {}, cosines = Object.entries(each.cosine || {});
  return [
    ...cosines.map(([name, values]) => ({ title: `cosine (${name})`, values, digits: 4, span: 0.002, low: true, limit: gate })),
    { title: "PSNR, dB", values: each.psnr || [], digits: 1, span: 2, low: true },
    { title: "temporal error, levels from the frame before", values: each.temporal_error || [], digits: 2, span: 0.5, low: false },
  ].map((shown) => strip(shown, player));
}

/* Figures frame by frame. limit: dashed, if in sight; span: the least height of the scale, so that noise stays small. */
function strip({ title, values, digits, span, low, limit }, player) {
  const found = values.filter(known);
  if (!found.length) return values.length ? el("p.soft", `${title}: not measurable in any frame; videos that are equal have no PSNR.`) : null;
  let [least, most] = [Math.min(...found), Math.max(...found)];
  const bad = values.indexOf(low ? least : most), spare = Math.max(0, span - (most - least)) / 2;
  [least, most] = [least - spare, most + spare];
  const x = (i) => ((i + 0.5) / values.length) * 100, y = (value) => 10 + (80 * (most - value)) / (most - least);
  const path = values.map((value, i) => (known(value) ? `${i && known(values[i - 1]) ? "L" : "M"}${x(i)} ${y(value)}h.01` : "")).join("");
  const picture = shape("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" }, shape("path", { d: path }));
  if (known(limit) && y(limit) > 0 && y(limit) < 100) picture.append(shape("path", { class: "limit", d: `M0 ${y(limit)}H100` }));
  const cursor = el("i.now"), value = el("b");
  const plot = el("div.plot", picture, styled({ left: `${x(bad)}%`, top: `${y(values[bad])}%` }, el("i.worst")), cursor);
  const scale = el("div.scale", el("span", most.toFixed(digits)), el("span", least.toFixed(digits)));
  const seek = (event) => {
    const { left, width } = plot.getBoundingClientRect();
    player.seek(within(Math.floor(((event.clientX - left) / width) * values.length), 0, values.length - 1));
  };
  plot.onpointerdown = (event) => { plot.setPointerCapture(event.pointerId); seek(event); };
  plot.onpointermove = (event) => { if (event.buttons) seek(event); };
  plot.title = "click or drag to see a frame";
  const go = el("button.link", `worst: frame ${bad + 1}`);
  go.onclick = () => player.seek(bad);
  player.listeners.push((frame) => {
    cursor.style.left = `${x(frame)}%`;
    value.textContent = number(values[frame], digits);
  });
  return el("div.strip", el("header", el("span", title), go, value), plot, scale);
}
