"use strict";
// Beside the video, when it is made: the base model's, what the judge found, and the player of the report.

const videos = {}, linked = false; // which the player looks at: addresses by name, and whether they are elsewhere

const comparison = async (id, method, signal) => (await ask(`v1/videos/${id}/comparison`, { method, signal })).json();

// A base run that exists is taken without asking; one that does not takes its time, so there is a button.
async function offer(job, signal) {
  await listed;
  if (!base || job.recipe === base) return;
  $("compare").onclick = async () => {
    try {
      await beside(job, await comparison(job.id, "POST", signal), signal);
    } catch (error) {
      fail(error);
    }
  };
  const found = await comparison(job.id, "GET", signal);
  if (found.base || found.status === "failed") {
    await beside(job, found.status === "not_asked" ? await comparison(job.id, "POST", signal) : found, signal);
  } else $("compare").hidden = false;
}

async function beside(job, asked, signal) {
  $("compare").hidden = true;
  $("beside").hidden = false;
  $("error").hidden = true;
  $("verdict").replaceChildren();
  let found = asked;
  while (!["completed", "failed", "not_asked"].includes(found.status)) {
    tell(found);
    await new Promise((done) => setTimeout(done, 500));
    found = await comparison(job.id, "GET", signal);
  }
  tell(found);
  $("compare").hidden = found.status === "completed";
  if (found.status === "completed") await draw(job, found, signal);
}

function tell({ status, base: made, error }) {
  const making = status === "queued" && made && ["queued", "in_progress"].includes(made.status);
  $("beside-status").textContent = error ? error.message
    : making ? `The base model makes the same video: ${made.frames_made} of ${made.frames} frames.`
      : { queued: "Waiting to be judged.", in_progress: "Being judged." }[status] ?? "";
  $("beside-bar").hidden = !making;
  $("beside-bar").value = making ? made.progress : 0;
  $("stop").hidden = !making;
  $("stop").onclick = () => ask(`v1/videos/${made.id}/cancel`, { method: "POST" }).catch(fail);
}

async function draw(job, { base: made, result }, signal) {
  for (const id of [result.reference, result.candidate]) {
    const blob = await (await ask(`v1/videos/${id}/content`, { signal })).blob();
    if (videos[id]) URL.revokeObjectURL(videos[id]);
    videos[id] = URL.createObjectURL(blob);
  }
  const player = new Player(result), { psnr } = result.metrics, failed = result.checks.filter((check) => !check.passes);
  player.element.querySelectorAll("figcaption").forEach((each, i) => { if (i < 2) each.textContent = ["base model", job.recipe][i]; });
  const figure = (name, value) => el("div", el("dt", name), el("dd", value));
  $("verdict").replaceChildren(
    el("dl", figure("The same video?", mark(result.passes)), figure("Level", result.level ?? "\u2013"),
      figure("Similarity", number(result.similarity, 4)), figure("PSNR", known(psnr) ? `${psnr.toFixed(1)} dB` : "equal"),
      figure("Times as fast", `${(made.result.total_seconds / job.result.total_seconds).toFixed(1)}\u00d7`)),
    failed.length ? el("ul", ...failed.map(({ name, value, limit }) => el("li", `${words(name)}: ${value}, needs ${limit}`))) : "",
    player.element, ...strips(result, result.gate, player).filter(Boolean));
  $("beside").onkeydown = (event) => player.keys(event);
  player.tell();
}
