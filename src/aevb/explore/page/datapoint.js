"use strict";
// One datapoint: pictures, verdict, evidence, and its posterior by guide and chains.
window.Aevb = window.Aevb || {};

(() => {
  const { Plot, paint, variable } = window.Aevb;
  const number = (value, digits = 2) =>
    value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");

  function element(tag, properties = {}, ...children) {
    const { role, aria = {}, ...rest } = properties;
    const made = Object.assign(document.createElement(tag), rest);
    if (role) made.setAttribute("role", role);
    for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function picture(content, label) {
    const canvas = element("canvas", { role: "img", aria: { label } });
    paint(canvas, content).catch(() => {});
    return canvas;
  }

  const figure = (content, label, caption) =>
    element("figure", {}, picture(content, label), element("figcaption", { className: "quiet small" }, caption));

  class DatapointPanel {
    /** `page` has `source`, `overview`, `map`, `figures` and `name(i)`. */
    constructor(page, body) {
      this.page = page;
      this.body = body;
    }
    async open(index) {
      const { page } = this;
      this.index = index;
      this.known = await page.source.datapoint(index);
      if (this.index !== index) return;
      this.trial = page.trials.get(index) || null;
      this._build();
      if (!page.source.isLive && page.source.has(index) && !this.trial) this.start();
    }
    _build() {
      const { known, page } = this, what = page.name(this.index);
      const samples = known.samples.length
        ? element("figure", {}, element("div", { className: "draws" },
            ...known.samples.map((s, i) => picture(s, `Reconstruction at draw ${i + 1} of the guide, ${what}`))),
          element("figcaption", { className: "quiet small" }, "at draws of the guide"))
        : null;
      this.verdict = element("div", { className: "verdict", role: "status" });
      this.button = element("button", { type: "button", className: "primary", id: "judge" }, "Put on trial: HMC and annealing");
      this.button.addEventListener("click", () => this.start());
      this.canvas = element("canvas", { id: "posterior", role: "img" });
      this.table = element("table");
      this.key = element("div", { className: "key" });
      this.body.replaceChildren(
        element("div", { className: page.overview.image ? "pair" : "pair bars" },
          figure(known.data, `Data, ${what}`, "data"),
          figure(known.reconstruction, `Reconstruction at the posterior mean, ${what}`, "reconstruction"), samples),
        this.verdict,
        element("div", { className: "columns" },
          element("div", {}, element("h3", {}, "Posterior"), this.canvas, this.key),
          element("div", {}, element("h3", {}, "log p(x), nats"), this.table)),
      );
      this.plot = new Plot(this.canvas);
      this.plot.pad = [40, 8, 8, 32];
      this.observer?.disconnect();
      this.observer = new ResizeObserver(() => this.draw());
      this.observer.observe(this.canvas);
      this.update();
    }
    async start() {
      const { page, index } = this;
      this.button.disabled = true;
      try {
        await page.run("trial", index, `Datapoint ${index}`, (job) => {
          page.trials.set(index, job);
          if (this.index === index) { this.trial = job; this.update(); }
        });
      } catch (error) {
        page.trials.delete(index);
        if (this.index === index) { this.trial = { error: error.message, evidence: [] }; this.update(); }
      }
      if (this.index === index) this.button.disabled = false;
    }
    update() {
      const { trial, known, page } = this;
      page.map.overlay = { guide: known.guide, draws: trial && trial.draws };
      page.map.draw();
      this._verdict();
      this._evidence();
      this.draw();
    }
    _verdict() {
      const { trial, verdict, page } = this;
      const found = trial && trial.verdict;
      verdict.className = `verdict ${found ? found.level : ""}`;
      if (found) {
        verdict.replaceChildren(element("strong", {}, found.line),
          element("ul", {}, ...found.why.map((line) => element("li", {}, line))));
      } else if (trial && trial.error) {
        verdict.replaceChildren(element("strong", {}, "No verdict."), trial.error);
      } else if (trial && trial.state === "running") {
        verdict.replaceChildren(element("strong", {}, `On trial: ${trial.stage} …`));
      } else if (!page.source.isLive && !page.source.has(this.index)) {
        verdict.replaceChildren(element("strong", {}, "Not on trial in this export."),
          "Chains were computed for the datapoints with the largest gaps, which are first under “Worst first”.");
      } else {
        const stopped = trial && trial.state === "cancelled";
        verdict.replaceChildren(element("strong", {}, stopped ? "Stopped." : "Not on trial yet."),
          element("p", {}, "Chains show whether the guide’s posterior is right here; annealing, whether its evidence is."),
          this.button);
      }
    }
    _evidence() {
      const { trial, page, index } = this, rows = [], { figures } = page;
      const row = (name, value, error, note) => element("tr", {},
        element("th", { scope: "row" }, name, note ? element("small", { className: note }, note) : null),
        element("td", { className: "number" }, number(value), error === undefined ? null : element("small", {}, `± ${number(error)}`)));
      const evidence = (trial && trial.evidence) || [];
      if (evidence.length) {
        if (evidence[0].elbo !== undefined) rows.push(row("ELBO", evidence[0].elbo, undefined, "bound"));
        for (const e of evidence) rows.push(row(e.estimator, e.log_evidence, e.standard_error, e.trusted ? "trusted" : "bound"));
        if (evidence[0].khat !== undefined) rows.push(row("k̂ of the weights", evidence[0].khat, undefined, ""));
      } else if (figures.khat && figures.khat[index] !== undefined) {
        const trusted = figures.trusted ? (figures.trusted[index] ? "trusted" : "bound") : "";
        rows.push(row("ELBO", figures.log_evidence[index] - figures.gap[index], undefined, "bound"),
          row("importance sampling", figures.log_evidence[index], undefined, trusted),
          row("k̂ of the weights", figures.khat[index], undefined, ""));
      }
      this.table.replaceChildren(...(rows.length ? [element("tbody", {}, ...rows)]
        : [element("tbody", {}, element("tr", {}, element("td", { className: "quiet" }, "Comes with the trial.")))]));
    }
    draw() {
      const { plot, known, trial, page } = this, [a, b] = page.map.columns;
      if (!this.canvas.isConnected || !this.canvas.clientWidth) return;
      plot.resize();
      const draws = (trial && trial.draws) || [], guide = known.guide.draws;
      const range = (column) => {
        const mean = known.guide.mean[column], sd = Math.sqrt(Math.max(known.guide.covariance[column][column], 1e-12));
        let [low, high] = [mean - 3.2 * sd, mean + 3.2 * sd];
        for (const row of draws) [low, high] = [Math.min(low, row[column]), Math.max(high, row[column])];
        const margin = 0.04 * (high - low);
        return [low - margin, high + margin];
      };
      plot.view = { x: range(a), y: range(b) };
      plot.context.clearRect(0, 0, plot.width, plot.height);
      plot.axes([page.overview.columns[a], page.overview.columns[b]]);
      const [blue, orange] = [variable("--guide"), variable("--chains")];
      plot.clip((c) => {
        plot.dots(c, draws, [a, b], orange, 3.5, 0.7);
        plot.dots(c, guide, [a, b], blue, 3, draws.length ? 0.3 : 0.6);
        plot.ellipse(c, known.guide, [a, b], blue);
      });
      const [x, y] = [a, b].map((column) => page.overview.columns[column]);
      this.canvas.setAttribute("aria-label", `Posterior in ${x} and ${y}: the guide has mean ${number(known.guide.mean[a])}, ` +
        `${number(known.guide.mean[b])} and standard deviations ${number(Math.sqrt(known.guide.covariance[a][a]))}, ` +
        `${number(Math.sqrt(known.guide.covariance[b][b]))}` + (draws.length ? `; ${draws.length} draws of the chains are drawn beside it` : ""));
      const swatch = (colour) => { const made = element("i", { className: "swatch" }); made.style.background = colour; return made; };
      this.key.replaceChildren(element("span", {}, swatch(blue), "guide, 95 % ellipse"),
        ...(draws.length ? [element("span", {}, swatch(orange), "HMC")] : []));
    }
  }

  Object.assign(window.Aevb, { element, number, picture, DatapointPanel });
})();
