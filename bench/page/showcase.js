/* Reference and candidate alone, which play by themselves as long as they are in sight, again and again. */
class Stage extends Player {
  build(video) {
    super.build(video);
    const [first, second] = this.element.querySelectorAll("figure");
    this.element = el(`div.stage${video.size[0] > video.size[1] ? ".broad" : ""}`, first, second);
    this.wanted = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.button.onclick = () => {
      this.wanted = !this.playing;
      this.toggle();
    };
    this.sight = new IntersectionObserver((seen) => this.look(seen[seen.length - 1].isIntersecting));
    this.sight.observe(this.element);
  }

  draw() {}

  look(visible) {
    this.visible = visible;
    if (!visible) this.rest();
    else if (this.wanted && !this.playing) this.begin();
  }

  /* Both begin when both can. */
  begin() {
    const ready = this.screens.every((each) => each.readyState >= 3);
    if (ready && this.visible) return this.play();
    if (!ready) this.screens.forEach((each) => each.addEventListener("canplay", () => this.look(this.visible), { once: true }));
    return undefined;
  }

  end() {
    this.rest();
    this.sight.disconnect();
  }
}

/* The first screen: reference and candidate in motion, and the figures one asks for first */

function leastCosine(video) {
  const values = Object.values(video.cosine || {}).map((cosine) => cosine.value);
  return values.includes(null) ? -1 : Math.min(...values);
}

function showcase(head) {
  const shown = report.runs.filter((run) => run.name !== report.baseline || report.runs.length === 1)
    .flatMap((run) => run.videos.filter((video) => video.status === "judged").map((video) => ({ run, video })));
  if (!shown.length) return [];
  const worst = shown.reduce((a, b) => (leastCosine(b.video) < leastCosine(a.video) ? b : a));
  const name = ({ run, video }) => `${report.runs.length > 1 ? `${run.name}: ` : ""}${video.id}${video === worst.video ? ", the least alike" : ""}`;
  const choice = el("select", ...shown.map((each, i) => Object.assign(el("option", name(each)), { value: i })));
  choice.ariaLabel = "video";
  const box = el("div.screen"), figures = el("div.large"), controls = el("div.controls");
  let stage = null;
  const change = () => {
    const { run, video } = shown[Number(choice.value)];
    if (stage) stage.end();
    stage = new Stage(video);
    const captions = stage.element.querySelectorAll("figcaption");
    captions[0].replaceChildren("base model");
    captions[1].replaceChildren(run.name);
    box.replaceChildren(stage.element);
    figures.replaceChildren(...large(run));
    controls.replaceChildren(...[stage.button, shown.length > 1 ? choice : null].filter(Boolean));
  };
  choice.value = shown.indexOf(worst);
  choice.onchange = change;
  change();
  return [el("section.first", box, el("div.told", ...head, figures, controls))];
}

function large(run) {
  const { similarity, speed_ratio, passes } = run.verdict, manifests = run.manifests, { gate } = report.settings;
  const loss = worst(run, "control_loss", Math.max);
  const ratio = known(speed_ratio) ? speed_ratio : manifests && manifests.ratio;
  const again = floor && (known(floor.psnr) ? `the base model again: ${floor.psnr.toFixed(1)} dB` : "the base model again: equal");
  const figure = (value, what, ...under) => el("div", el("b", value), el("span", what), ...under.filter(Boolean).map((text) => el("small", text)));
  const count = run.videos.filter((video) => video.passes).length;
  return [
    el("div.decision", mark(passes), el("span", ` ${count} of ${run.videos.length} are the same video`)),
    known(ratio) ? figure(`${ratio.toFixed(ratio < 10 ? 2 : 1)}\u00d7`, "as fast as the base model",
      known(speed_ratio) ? null : `by the manifests, ${manifests.videos.length === 1 ? manifests.videos[0] : `${manifests.videos.length} videos`}`) : null,
    figure(number(similarity, 4), "similarity", known(similarity) ? `at least ${gate[0]}` : "could not be evaluated"),
    figure(decibels(Math.min, run.videos.map((video) => video.metrics), " dB"), "PSNR, worst video", again || "noise floor not measured"),
    known(loss) ? figure(`${(100 * worst(run, "control_candidate", Math.min)).toFixed(1)} %`, "of joints where the skeleton has them",
      `the base model: ${(100 * worst(run, "control_reference", Math.min)).toFixed(1)} %`) : null,
  ].filter(Boolean);
}

