"use strict";
// The page put together.

(() => {
  const { CLASSES, DatapointPanel, RegionPanel, ScatterMap, SliderPanel, WorstPanel } = window.Aevb;
  const { dark, element, image, number, paint, ramp, scaleOf, source, variable } = window.Aevb;
  const $ = (id) => document.getElementById(id);
  const COLOURS = { label: "label", khat: "k̂", gap: "gap", log_evidence: "log p(x)", ess: "effective draws", none: "none" };

  class Page {
    constructor() {
      this.source = source();
      this.trials = new Map();
      this.figures = {};
      this.only = null; // the class that is not faded
      this.map = new ScatterMap($("map"), {
        hover: (i, at) => this.hover(i, at), pick: (i) => this.pick(i), region: () => this.brush(true),
        sample: () => this.regions.sample(), say: (i) => this.say(i === null ? "Region moved; press Enter to sample." : this.name(i)),
      });
      this.panel = new DatapointPanel(this, $("datapoint-body"));
      this.sliders = new SliderPanel(this);
      this.regions = new RegionPanel(this);
      this.worst = new WorstPanel(this);
    }
    async open() {
      const { map, source: from } = this;
      this.overview = await from.overview();
      this.header();
      map.load(this.overview);
      this.choices();
      map.resize();
      this.view();
      for (const panel of [this.sliders, this.regions]) panel.build();
      this.colour();
      this.worst.update();
      $("zoom-in").addEventListener("click", () => map.zoom(0.7));
      $("zoom-out").addEventListener("click", () => map.zoom(1 / 0.7));
      $("zoom-all").addEventListener("click", () => map.fit());
      $("brush").addEventListener("click", (e) => this.brush(e.detail === 0));
      dark.addEventListener("change", () => { this.colour(); if (this.panel.plot) this.panel.draw(); });
      if (!from.isLive && from.content.weighed) await this.weigh();
    }
    header() {
      const { about, count, num_samples: samples } = this.overview;
      $("title").textContent = about.run || "Latent space";
      document.title = `${about.run || "model"} · aevb explorer`;
      const counted = `${count.toLocaleString("en")} datapoints of ${about.data || "the data"}`;
      $("about").textContent = [counted, about.split && `${about.split} split`, about.epoch && `after epoch ${about.epoch}`].filter(Boolean).join(" · ");
      $("model").textContent = about.model || "";
      $("model-details").hidden = !about.model;
      $("footer").textContent = `Seed ${about.seed ?? 0}; k̂ and gaps by importance sampling with ${samples.toLocaleString("en")} draws of the guide; ` +
        `the gap is log p(x) − ELBO, a lower bound where weights are not trusted. ${this.source.isLive ? "" : "A static export: what is not in it is computed by aevb explore RUN."}`;
    }
    choices() {
      const { columns, explained, labels, plane } = this.overview;
      const names = columns.map((name, at) => {
        const share = explained && name.startsWith("PC ") ? explained[Number(name.slice(3)) - 1] : null;
        return new Option(share === null ? name : `${name} (${number(100 * share, 0)} %)`, at);
      });
      for (const [id, at] of [["axis-x", 0], ["axis-y", 1]]) {
        $(id).replaceChildren(...names.map((o) => o.cloneNode(true)));
        $(id).value = at;
        $(id).addEventListener("change", () => this.view());
      }
      $("colour").replaceChildren(...Object.entries(COLOURS).filter(([key]) => key !== "label" || labels).map(([key, name]) => new Option(name, key)));
      $("colour").value = labels ? "label" : this.source.isLive ? "none" : "gap";
      $("colour").addEventListener("change", () => {
        this.only = null;
        if ($("colour").value in this.figures || ["label", "none"].includes($("colour").value)) this.colour();
        else this.weigh();
      });
      $("plane-label").hidden = !plane;
      $("plane").addEventListener("change", () => this.layers());
      $("as-pictures").addEventListener("change", () => this.layers());
    }
    view() {
      const columns = [Number($("axis-x").value), Number($("axis-y").value)];
      this.map.show(columns);
      this.map.slider = null;
      const swapped = columns[0] !== 0 || columns[1] !== 1;
      $("plane").disabled = swapped; // its picture lies as the latents come
      if (swapped && $("plane").checked) { $("plane").checked = false; this.layers(); }
      this.describe();
      if (this.panel.plot) this.panel.draw();
    }
    describe() {
      const [x, y] = this.map.columns.map((column) => this.overview.columns[column]);
      $("map").setAttribute("aria-label", `Map of ${this.overview.count} datapoints, ${x} across and ${y} up, coloured by ${COLOURS[$("colour").value]}`);
    }
    async layers() {
      const { map, source: from } = this;
      map.pictures = $("as-pictures").checked ? await image(from.sheets.sprite) : null;
      map.plane = $("plane").checked ? await image(from.sheets.plane) : null;
      map.draw();
    }
    colour() {
      const { map, overview, figures } = this, by = $("colour").value, { labels } = overview;
      const legend = [];
      map.faded = () => false;
      if (by === "label" && labels.classes) {
        map.colours = labels.values.map((v) => CLASSES[v]);
        map.faded = (i) => this.only !== null && labels.values[i] !== this.only;
        labels.classes.forEach((name, at) => {
          const swatch = element("i", { className: "swatch" });
          swatch.style.background = CLASSES[at];
          const button = element("button", { type: "button", title: `Only ${name}`, aria: { pressed: this.only === at, label: `Show only label ${name}` } }, swatch, name);
          button.addEventListener("click", () => { this.only = this.only === at ? null : at; this.colour(); });
          legend.push(button);
        });
      } else if (by === "none" || (by !== "label" && !figures[by])) {
        map.colours = overview.positions[0].map(() => variable("--accent"));
      } else {
        const values = by === "label" ? labels.values : figures[by];
        const scale = scaleOf(values, by === "khat" ? [0, 1.2] : null);
        const none = variable("--line");
        map.colours = overview.positions[0].map((_, i) => scale.colour(values[i]) || none);
        const bar = element("i", { className: "ramp", role: "img", aria: { label: `Colours from ${number(scale.low)} to ${number(scale.high)}` } });
        bar.style.background = `linear-gradient(90deg, ${[...Array(9).keys()].map((k) => ramp(k / 8)).join(", ")})`;
        legend.push(number(scale.low), bar, number(scale.high), element("span", { className: "quiet" },
          by === "khat" ? "k̂: above 0.7 importance sampling fails" : by === "gap" ? "log p(x) − ELBO, nats" : COLOURS[by]));
      }
      const held = [...$("legend").children].indexOf(document.activeElement);
      $("legend").replaceChildren(...legend);
      if (held >= 0) $("legend").children[held]?.focus();
      this.describe();
      map.draw();
    }
    name(i, withFigures = true) {
      const { labels } = this.overview, { khat, gap } = this.figures;
      const parts = [`Datapoint ${i}`];
      if (labels) parts.push(`label ${labels.classes ? labels.classes[labels.values[i]] : labels.values[i]}`);
      if (withFigures && khat && khat[i] !== undefined) parts.push(`gap ${number(gap[i])}`, `k̂ ${khat[i] === null ? "∞" : number(khat[i])}`);
      return parts.join(", ");
    }
    thumbnail(i) { return { sheet: this.source.sheets.sprite, cell: i, ...this.overview.sprite }; }
    say(text) { $("status").textContent = text; }
    hover(i, at) {
      $("tip").hidden = i === null;
      if (i === null) return;
      if (this.hovered !== i) { paint($("tip").firstElementChild, this.thumbnail(i)); this.hovered = i; }
      $("tip").lastElementChild.textContent = this.name(i);
      const right = at[0] > this.map.width / 2;
      $("tip").style.left = right ? "" : `${at[0] + 14}px`;
      $("tip").style.right = right ? `${this.map.width - at[0] + 14}px` : "";
      $("tip").style.top = `${Math.min(at[1] + 10, this.map.height - 110)}px`;
    }
    async pick(i, scroll) {
      this.map.selected = this.map.focus = i;
      this.map.draw();
      this.worst.mark(i);
      $("datapoint-title").textContent = this.name(i, false);
      try {
        await this.panel.open(i);
        this.sliders.follow(i, this.panel.known.values);
        this.say(`${this.name(i)} is open.`);
        if (scroll) $("datapoint").scrollIntoView({ block: "nearest" });
      } catch (error) { this.say(error.message); $("datapoint-body").textContent = error.message; }
    }
    brush(byKey) {
      const on = !this.map.brushing;
      this.map.setBrushing(on, byKey);
      $("brush").setAttribute("aria-pressed", on);
      $("brush").textContent = on ? "▭ Drag over the map" : "▭ Select a region";
      if (on && byKey) $("map").focus({ preventScroll: true });
      this.say(on ? "Selecting a region." : "Selecting datapoints.");
    }
    async weigh() {
      if (this.weighing) return;
      this.weighing = true;
      this.worst.update();
      if (!["khat", "gap", "log_evidence", "ess"].includes($("colour").value) && this.source.isLive) $("colour").value = "gap";
      try {
        await this.run("weigh", null, "Importance sampling", (job) => {
          if (!job.figures) return;
          this.figures = { ...job.figures, trusted: job.trusted, summary: job.summary };
          this.colour();
          this.worst.update();
        });
      } catch (error) { $("worst-note").textContent = error.message; if ($("colour").value !== "label") this.colour(); }
      this.weighing = false;
      this.worst.update();
    }
    /** Show a computation while it runs. */
    async run(kind, index, name, seen) {
      const bar = $("job"), mine = (this.running = {});
      try {
        return await this.source.run(kind, index, (job, stop) => {
          seen(job);
          if (this.running !== mine) return;
          bar.hidden = job.state !== "running";
          $("job-name").textContent = job.stage ? `${name}: ${job.stage}` : name;
          $("job-bar").value = job.share || 0;
          $("job-stop").onclick = stop;
        });
      } finally { if (this.running === mine) bar.hidden = true; }
    }
  }

  const page = new Page();
  window.Aevb.page = page;
  page.open().then(() => document.documentElement.classList.add("ready"),
    (error) => { $("about").textContent = error.message; });
})();
