const { report, curves, videos, linked, remarks, floor } = JSON.parse(document.getElementById("data").textContent);
const STAGES = ["read", "condition", "denoise", "decode", "write", "other"];
const DASHES = ["none", "8 4", "2 3", "10 3 2 3", "14 5", "5 2"];
const colour = (i) => `var(--s${i % 6})`;
const lineColour = (i) => colour([0, 2, 3, 5, 1, 4][i % 6]);  // for thin lines: those with most contrast first

const swatch = (i) => styled({ background: colour(i) }, el("i.key"));

/* heads: "#name" is a column of numbers, "name" of text. */
function table(heads, rows, kind = "table") {
  const numeric = heads.map((head) => head.title.startsWith("#"));
  const cell = (kind) => (content, i) => el(kind + (numeric[i] ? ".number" : i ? "" : ".head"), ...[content].flat());
  const titles = heads.map((head) => [head.mark, head.title.replace("#", "")]);
  return el("div.wide", el(kind, el("thead", el("tr", ...titles.map(cell("th")))),
    el("tbody", ...rows.map((row) => el("tr", ...row.map(cell("td")))))));
}
const heads = (...titles) => titles.map((title) => ({ title, mark: null }));

/* What was found */

function opening() {
  const passed = report.runs.filter((run) => run.verdict.passes).length, count = report.runs.length;
  const { gate, time_threshold, extractors } = report.settings;
  const few = passed === 1 ? "passes" : "pass";
  const title = count === 1 ? `${report.runs[0].name} ${passed ? "passes" : "fails"}`
    : passed === count ? `All ${count} runs pass` : passed ? `${passed} of ${count} runs ${few}` : `None of ${count} runs passes`;
  const limit = known(time_threshold) ? `, within ${time_threshold} s a video` : "";
  const head = [el("p.over", `Vivace bench, ${report.created.replace("T", " ").replace("Z", " UTC")}`), el("h1", title)];
  const first = showcase(head);
  return [...(first.length ? first : head),
    el("p.soft", `A run passes if each of its videos has a cosine from ${gate[0]} to ${gate[1]} with its reference (${extractors.join(", ")}) `
      + `and holds all other checks${limit}. ${remarks.join(" ")}`),
    el("div.verdicts", ...report.runs.map(verdict))];
}

function verdict(run) {
  const { passes, reasons, similarity, speed_ratio, score } = run.verdict;
  const said = [known(similarity) ? `similarity ${similarity.toFixed(4)}` : "similarity could not be evaluated"];
  if (known(speed_ratio)) said.push(run.name === report.baseline ? "the baseline" : `${speed_ratio.toFixed(2)} times as fast as the baseline`);
  if (run.timing) said.push(`${number(run.timing.contest_seconds, 2)} s a video`);
  const missing = Object.entries(run.failed || {}).map(([id, why]) => `${id} was not made: ${why}`);
  const notes = Object.entries(run.notes || {}).flatMap(([id, said]) => said.map((text) => `${id}: ${text}`));
  const items = [...(run.base ? [run.base] : []), ...(run.remarks || []), ...reasons, ...missing, ...notes].map((text) => el("li", text)), note = run.recipe && run.recipe.note;
  const rest = items.splice(6);
  return el(`div.verdict.${passes ? "pass" : "fail"}`, el("h3", run.name, " ", mark(passes)),
    known(score) ? el("div.points", score.toFixed(1), el("small", "of 100")) : null, el("p", said.join(", ")), note ? el("p.soft", note) : null,
    items.length ? el("ul", ...items) : null,
    rest.length ? el("details", el("summary", `${rest.length} more`), el("ul", ...rest)) : null);
}

function worst(run, metric, pick) {
  const values = run.videos.map((video) => (video.metrics || {})[metric]).filter(known);
  return values.length ? pick(...values) : null;
}

/* The PSNR of videos' figures: of those that differ; null is of videos that are equal. */
function decibels(pick, figures, unit = "") {
  const found = figures.map((each) => (each || {}).psnr).filter((value) => value !== undefined), differ = found.filter(known);
  return found.length && !differ.length ? "equal" : number(differ.length ? pick(...differ) : null, 1, unit);
}

function runs() {
  const rows = report.runs.map((run) => {
    const timing = run.timing || {}, p = timing.seconds_per_video || {};
    const made = [run.backend, run.recipe && run.recipe.precision, run.name === report.baseline ? "baseline" : null].filter(Boolean);
    return [[run.name, made.length ? el("small", made.join(", ")) : null], mark(run.verdict.passes),
      number(run.verdict.speed_ratio, 2, "\u00d7"), number(timing.contest_seconds, 2), number(p.p50, 2), number(p.p90, 2),
      number(timing.cold_start, 2), number(timing.build_seconds, 1), number(run.verdict.similarity, 4), decibels(Math.min, run.videos.map((video) => video.metrics)),
      number(worst(run, "temporal_error", Math.max), 2), number(timing.peak_memory_mb, 0), number(timing.gpu_memory_mb, 0)];
  });
  const scales = Object.keys(report.settings.beside || {});
  rows.forEach((row, i) => row.push(...scales.map((name) => decibels(Math.max, report.runs[i].videos.map((video) => (video.beside || {})[name])))));
  const titles = heads("run", "verdict", "#speed", "#s a video", "#p50, s", "#p90, s", "#cold start, s", "#build, s", "#similarity", "#PSNR, dB",
    "#temporal error", "#memory, MB", "#GPU, MB", ...scales.map((name) => `#PSNR of ${name}, dB`));
  const filled = titles.map((_, i) => i < 2 || rows.some((row) => row[i] !== "\u2013"));
  const kept = (row) => row.filter((_, i) => filled[i]);
  const notes = ["Similarity, PSNR and temporal error are those of the worst video."];
  if (report.runs.some((run) => run.timing)) notes.push("Seconds a video are the whole script's, divided by videos; p50 and p90 are of single videos.");
  if (report.runs.some((run) => run.timing && known(run.timing.build_seconds))) {
    notes.push("Build is what the built files that a run loads have taken, each by itself and before; it counts in no other figure.");
  }
  if (known(report.noise_floor)) {
    notes.push(`Speeds that differ by less than ${(100 * report.noise_floor).toFixed(1)} % may be equal: the baseline timed against itself differs by as much.`);
  }
  for (const run of report.runs) {
    if ((run.nondeterministic || []).length) notes.push(`${run.name} makes other frames each time: ${run.nondeterministic.join(", ")}.`);
  }
  return [el("h2", "Runs"), table(kept(titles), rows.map(kept)), el("p.soft", notes.join(" "))];
}

function stages() {
  const timed = report.runs.filter((run) => run.timing && run.timing.stages);
  if (!timed.length) return [];
  const of = (run, stage) => Math.max(0, run.timing.stages[stage] || 0);
  const total = (run) => STAGES.reduce((sum, stage) => sum + of(run, stage), 0);
  const most = Math.max(...timed.map(total)) || 1;
  const bars = timed.flatMap((run) => [el("span.name", run.name), el("span.total", `${total(run).toFixed(2)} s`), el("div.bar", ...STAGES.map((stage, i) => {
    const part = Object.assign(el("span"), { title: `${stage}: ${of(run, stage).toFixed(3)} s` });
    return styled({ width: `${(100 * of(run, stage)) / most}%`, background: colour(i) }, part);
  }))]);
  const titles = [...heads("run"), ...STAGES.map((stage, i) => ({ title: `#${stage}`, mark: swatch(i) }))];
  const rows = timed.map((run) => [run.name, ...STAGES.map((stage) => number(run.timing.stages[stage], 3))]);
  return [el("h2", "Where the time goes"), el("div.bars", ...bars), table(titles, rows),
    el("p.soft", "Mean seconds a video in each stage, without the start of the script.")];
}

/* The score, which depends on a threshold that is not known */

function scores() {
  if (!curves.length) return [];
  const box = el("div.chart");
  new ResizeObserver(() => box.replaceChildren(chart(box.clientWidth))).observe(box);
  const legend = curves.map((curve, i) => el("span.name",
    shape("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" }, line([[0, 4], [28, 4]], i)), curve.name));
  return [el("h2", "Score over the time threshold"),
    el("p.soft", "The contest's threshold is not known: here is what each run would score under any, in seconds a video that are allowed. "
      + "The points for speed are taken to fall in a straight line from 70 at no time to 0 at the threshold; 30 are for similarity."),
    el("p.legend", ...legend), box];
}
const line = (points, i) => shape("polyline", { points: points.map((each) => each.join(",")).join(" "), fill: "none",
  "stroke-width": 2, "stroke-linejoin": "round", "stroke-dasharray": DASHES[i % 6], stroke: lineColour(i) });

function chart(width) {
  const height = 260, left = 30, right = 8, top = 10, bottom = 26, ends = curves[0].points.map((point) => point[0]);
  const most = Math.max(...ends), threshold = report.settings.time_threshold;
  const x = (seconds) => left + ((width - left - right) * seconds) / most;
  const y = (points) => top + ((height - top - bottom) * (100 - points)) / 100;
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "score over time threshold" });
  for (const points of [0, 25, 50, 75, 100]) {
    picture.append(shape("line", { x1: left, x2: width - right, y1: y(points), y2: y(points), stroke: "var(--line)" }),
      shape("text", { x: left - 6, y: y(points) + 4, "text-anchor": "end" }, `${points}`));
  }
  const rough = most / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough), digits = Math.max(0, -Math.floor(Math.log10(step)));
  for (let i = 0; i * step < most * 0.97; i += 1) {
    picture.append(shape("text", { x: x(i * step), y: height - 6, "text-anchor": "middle" }, (i * step).toFixed(digits) + (i ? "" : " s")));
  }
  if (known(threshold) && threshold <= most) {
    const late = threshold > most * 0.7;
    picture.append(shape("line", { x1: x(threshold), x2: x(threshold), y1: top, y2: y(0), stroke: "var(--ink)", "stroke-dasharray": "3 3" }),
      shape("text", { x: x(threshold) + (late ? -6 : 6), y: top + 10, "text-anchor": late ? "end" : "start" }, `set: ${threshold} s`));
  }
  curves.forEach((curve, i) => picture.append(line(curve.points.map(([a, b]) => [x(a).toFixed(1), y(b).toFixed(1)]), i)));
  return picture;
}

/* A video's section */

function content(video, details) {
  if (video.status !== "judged") return el("div.body", el("p.fail.name", video.error));
  const player = new Player(video);
  const rows = video.checks.map((check) => [words(check.name), mark(check.passes), check.value, check.limit]);
  const metrics = Object.entries(video.metrics || {}).map(([name, value]) =>
    el("div", el("dt", words(name)), el("dd", number(value, Number.isInteger(value) ? 0 : 3))));
  const beside = Object.entries(video.beside || {}).flatMap(([name, found]) => Object.entries(found).map(([metric, value]) =>
    el("div", el("dt", `${words(metric)}, ${name}`), el("dd", number(value, 3)))));
  metrics.push(...beside);
  const body = el("div.body", player.element, ...strips(video, report.settings.gate[0], player),
    el("h3", "Checks"), table(heads("check", "verdict", "value", "limit"), rows, "table.checks"),
    metrics.length ? el("h3", "Metrics") : null, metrics.length ? el("dl.figures", ...metrics) : null);
  player.tell();
  details.onkeydown = (event) => player.keys(event);
  details.addEventListener("toggle", () => { if (!details.open) player.rest(); });
  return body;
}

function section(video) {
  const cosines = Object.entries(video.cosine || {}).map(([name, cosine]) => `${name} ${number(cosine.value, 4)}`);
  const { psnr, vmaf } = video.metrics || {}, failed = (video.checks || []).filter((check) => !check.passes);
  const left = (video.unchecked || []).length ? `judged without its skeleton: ${video.unchecked.length} checks left out` : "";
  const figures = [...cosines, known(psnr) ? `PSNR ${psnr.toFixed(1)} dB` : "", known(vmaf) ? `VMAF ${vmaf.toFixed(1)}` : "",
    left, failed.length ? `fails: ${failed.map((check) => words(check.name)).join(", ")}` : ""];
  const details = el("details.video", el("summary", el("b", video.id), mark(video.passes),
    el("span.soft", video.status === "judged" ? figures.filter(Boolean).join("; ") : "not judged")));
  const fill = () => {
    if (!details.open) return;
    details.removeEventListener("toggle", fill);
    details.append(content(video, details));
  };
  details.addEventListener("toggle", fill);
  return details;
}

function sections() {
  const several = report.runs.length > 1;
  return [el("h2", "Videos"),
    el("p.soft", "Open one to see it beside its reference. Arrow keys step by a frame, with Shift by ten."),
    linked ? el("p.soft.name", "The videos are too large to be in this page. It shows them from their own places, so keep it where it was written.") : null,
    ...report.runs.flatMap((run) => [several ? el("h3", run.name) : null, ...run.videos.map(section)])].filter(Boolean);
}

function environment() {
  const { machine, settings } = report, { packages = {} } = machine || {};
  const lines = {
    "processor": machine && `${machine.processor}, ${machine.cores} of ${machine.cpus} cores`,
    "load at the start": machine && machine.load_average.length && `${machine.load_average.map((load) => load.toFixed(2)).join(", ")} (processes over 1, 5 and 15 minutes)`, "GPU": machine && machine.gpu,
    "system": machine && machine.system, "Python": machine && machine.python,
    "packages": Object.entries(packages).map((pair) => pair.join(" ")).join(", "),
    "data": report.data, "references": report.reference, "candidates": report.runs.map((run) => run.folder).join(", "),
    "rounds": report.runs.some((run) => run.timing) ? settings.rounds : null, "made by": `${report.what}, schema ${report.schema}`,
  };
  const shown = Object.entries(lines).filter(([, text]) => text);
  return [el("h2", "Environment"), el("dl.made", ...shown.flatMap(([name, text]) => [el("dt", name), el("dd", `${text}`)]))];
}

document.getElementById("report").append(...opening(), ...runs(), ...stages(), ...scores(), ...sections(), ...environment());
