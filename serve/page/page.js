"use strict";
// The page of the service: send two files, then watch the growing video through Media Source, and its progress.
// What comes from outside is only ever set as text.

const $ = (id) => document.getElementById(id);
const BEHIND = 5; // seconds of what was played that are kept, to go back to
const files = { video: null, image: null };
const views = {};
let recipes = {}, base = null, listed, run = null; // base: its recipe; run: the AbortController of what is shown

async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  if (answer.status === 401) {
    $("key-row").hidden = false;
    throw new Error("This service asks for a key: give yours.");
  }
  throw new Error(told.error?.message ?? `The service answered ${answer.status}.`);
}

function fail(error) {
  if (error.name === "AbortError") return;
  const lost = error instanceof TypeError; // what fetch throws when nothing answers
  $("error").textContent = lost ? "The service does not answer. Reload the page when it runs again." : error.message;
  $("error").hidden = false;
}

function choose(kind, file, name = file.name) {
  files[kind] = file;
  $(`${kind}-name`).textContent = name;
  if (views[kind]) URL.revokeObjectURL(views[kind]);
  const view = $(`${kind}-view`);
  view.src = views[kind] = URL.createObjectURL(file);
  view.hidden = false;
  if (kind === "video") view.play().catch(() => {});
}

async function takeSample(name) {
  const [video, image] = await Promise.all(["video", "image"].map(
    async (kind) => (await ask(`samples/${name}/${kind}`)).blob()));
  choose("video", video, `sample ${name}`);
  choose("image", image, `sample ${name}`);
}

async function listSamples() {
  for (const name of (await (await ask("samples")).json()).data) {
    const button = document.createElement("button"), picture = document.createElement("img");
    Object.assign(picture, { src: `samples/${name}/image`, alt: "" });
    Object.assign(button, { type: "button", title: `Take sample ${name}` });
    button.append(picture, name);
    button.addEventListener("click", () => takeSample(name).catch(fail));
    $("samples").append(button);
    $("samples").hidden = false;
  }
}

async function listRecipes() {
  const { data, base: named } = await (await ask("v1/recipes")).json();
  base = named;
  recipes = Object.fromEntries(data.map(({ id, note }) => [id, note]));
  $("recipe").replaceChildren(...data.map(({ id }) => new Option(id, id)));
  $("note").textContent = recipes[$("recipe").value] ?? "";
}

async function make() {
  $("error").hidden = true;
  sessionStorage.setItem("key", $("key").value);
  if (!files.video || !files.image) throw new Error("Choose a skeleton video and a picture, or take a sample.");
  const form = new FormData();
  for (const kind of ["video", "image"]) form.append(kind, files[kind], kind);
  form.append("seed", $("seed").value);
  if ($("recipe").value) form.append("recipe", $("recipe").value);
  $("make").disabled = true;
  $("status").textContent = "Sending.";
  try {
    const job = await (await ask("v1/videos", { method: "POST", body: form })).json();
    history.replaceState(null, "", `#${job.id}`);
    watch(job.id);
  } catch (error) {
    $("status").textContent = "Not made.";
    throw error;
  } finally {
    $("make").disabled = false;
  }
}

function watch(id) {
  run?.abort();
  run = new AbortController();
  for (const id of ["save", "compare", "beside", "error"]) $(id).hidden = true;
  $("waiting").hidden = false;
  $("result").scrollIntoView({ block: "nearest", behavior: "smooth" });
  play(id, run.signal).catch(fail);
  follow(id, run.signal).catch(fail);
}

function show(job) {
  if (job.deleted) {
    $("status").textContent = "Removed.";
    for (const id of ["cancel", "save", "compare"]) $(id).hidden = true;
    return;
  }
  const told = {
    queued: "Waiting for its turn.", in_progress: "Being made.", completed: "Made.", cancelled: "Cancelled.", failed: "Not made.",
  };
  $("status").textContent = told[job.status] ?? job.status;
  $("bar").value = job.progress;
  $("first").textContent = number(job.first_frame_seconds, 2, " s");
  $("frames").textContent = `${job.frames_made} of ${job.frames}`;
  $("rate").textContent = number(job.frames_per_second, 1);
  $("factor").textContent = number(job.real_time_factor, 2);
  $("level").textContent = job.recipe;
  $("level").title = recipes[job.recipe] ?? "";
  $("cancel").hidden = !["queued", "in_progress"].includes(job.status);
  $("save").hidden = job.status !== "completed";
  if (job.error) fail(new Error(job.error.message));
}

async function follow(id, signal) {
  const reader = (await ask(`v1/videos/${id}/events`, { signal })).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part; !(part = await reader.read()).done;) {
    const blocks = (text + part.value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.match(/^data: (.*)$/m);
      if (!data) continue;
      const job = JSON.parse(data[1]);
      show(block.startsWith("event: deleted") ? { deleted: true } : job);
      if (job.status === "completed") offer(job, signal).catch(fail);
    }
  }
}

// The codec's name for Media Source stands in the file: three bytes of the box avcC, after its version.
function codecOf(bytes) {
  for (let at = 0; at + 8 < bytes.length; at += 1) {
    if (String.fromCharCode(...bytes.subarray(at, at + 4)) === "avcC") {
      const hex = [...bytes.subarray(at + 5, at + 8)].map((each) => each.toString(16).padStart(2, "0"));
      return `video/mp4; codecs="avc1.${hex.join("")}"`;
    }
  }
  return null;
}

const event = (target, name) => new Promise((done) => target.addEventListener(name, done, { once: true }));

async function play(id, signal) {
  const job = async () => (await ask(`v1/videos/${id}`, { signal })).json();
  try {
    if ((await job()).status === "completed") return await playFinished(id, signal);
    await playGrowing(id, signal);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // what a body that breaks off throws
    const { status } = await job();
    if (status === "completed") return playFinished(id, signal);
    if (["queued", "in_progress"].includes(status)) throw new Error("The stream broke off. Reload the page.");
  }
}

async function playFinished(id, signal) {
  const path = `v1/videos/${id}/content`; // a key goes with no address: with one, the file is fetched
  if (!sessionStorage.getItem("key")) return start($("screen"), path);
  start($("screen"), URL.createObjectURL(await (await ask(path, { signal })).blob()));
}

async function playGrowing(id, signal) {
  const Source = window.ManagedMediaSource ?? window.MediaSource, screen = $("screen");
  const reader = (await ask(`v1/videos/${id}/stream`, { signal })).body.getReader();
  if (!Source) { // nothing to play from while it grows: wait for its end
    const parts = [];
    for (let part; !(part = await reader.read()).done;) parts.push(part.value);
    return start(screen, URL.createObjectURL(new Blob(parts, { type: "video/mp4" })));
  }
  const source = new Source();
  screen.disableRemotePlayback = true; // which ManagedMediaSource asks for
  let buffer = null, held = new Uint8Array();
  for (let part; !(part = await reader.read()).done;) {
    held = new Uint8Array([...held, ...part.value]);
    if (!buffer) {
      const codec = codecOf(held);
      if (!codec) continue;
      start(screen, URL.createObjectURL(source));
      await event(source, "sourceopen");
      buffer = source.addSourceBuffer(codec);
    }
    await append(buffer, held, screen, signal);
    held = new Uint8Array();
  }
  if (buffer && source.readyState === "open") source.endOfStream();
}

// A browser keeps so many megabytes: when they are full, what was played goes, and the rest waits for its turn.
async function append(buffer, data, screen, signal) {
  for (;;) {
    signal.throwIfAborted();
    try {
      buffer.appendBuffer(data);
      return await event(buffer, "updateend");
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      const { buffered } = buffer, played = screen.currentTime - BEHIND;
      if (buffered.length && buffered.start(0) < played - 1) {
        buffer.remove(0, played);
        await event(buffer, "updateend");
      } else await event(screen, "timeupdate");
    }
  }
}

function start(screen, address) {
  if (screen.src.startsWith("blob:")) URL.revokeObjectURL(screen.src);
  screen.src = address;
  screen.controls = true;
  screen.play().catch(() => {}); // a browser that plays nothing unasked: the controls are there
  screen.addEventListener("loadeddata", () => { $("waiting").hidden = true; }, { once: true });
}

async function save() {
  const id = location.hash.slice(1), blob = await (await ask(`v1/videos/${id}/content`)).blob();
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${id}.mp4` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function cancel() {
  show(await (await ask(`v1/videos/${location.hash.slice(1)}/cancel`, { method: "POST" })).json());
}

for (const kind of ["video", "image"]) {
  const input = $(kind), drop = input.closest(".drop");
  input.addEventListener("change", () => input.files[0] && choose(kind, input.files[0]));
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (dragged) => {
      dragged.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && dragged.dataTransfer.files[0]) choose(kind, dragged.dataTransfer.files[0]);
    });
  }
}
$("form").addEventListener("submit", (sent) => { sent.preventDefault(); make().catch(fail); });
$("cancel").addEventListener("click", () => cancel().catch(fail));
$("save").addEventListener("click", () => save().catch(fail));
$("recipe").addEventListener("change", () => { $("note").textContent = recipes[$("recipe").value] ?? ""; });
$("key").addEventListener("change", () => {
  sessionStorage.setItem("key", $("key").value);
  $("error").hidden = true;
  listed = listRecipes().catch(fail);
});
$("key").value = sessionStorage.getItem("key") ?? "";
listSamples().catch(fail);
listed = listRecipes().catch(fail);
if (/^#video_[0-9a-f]{24}$/.test(location.hash)) watch(location.hash.slice(1));
