"use strict";
// Sliders, samples of a region, and datapoints from the worst on.
window.Aevb = window.Aevb || {};

(() => {
  const { element, number, paint, picture } = window.Aevb;
  const FEW = 8; // sliders at first
  const $ = (id) => document.getElementById(id);

  /** Only the latest of the calls that come while one is under way is made. */
  function latest(call) {
    let busy = false, next = null;
    return async function again(...given) {
      if (busy) { next = given; return; }
      busy = true;
      try { await call(...given); } finally {
        busy = false;
        if (next) { const now = next; next = null; again(...now); }
      }
    };
  }

  class SliderPanel {
    constructor(page) {
      this.page = page;
      this.inputs = [];
      this.decode = latest((moved) => this._decode(moved));
      $("to-centre").addEventListener("click", () => this.centre());
      $("to-datapoint").addEventListener("click", () => this.follow(this.base, this.values));
      $("more-sliders").addEventListener("click", (e) => {
        const open = e.target.getAttribute("aria-expanded") === "false";
        e.target.setAttribute("aria-expanded", open);
        e.target.textContent = open ? "Fewer latents" : `All ${this.inputs.length} latents`;
        this._show(open);
      });
    }
    build() {
      const { overview, source } = this.page;
      const list = overview.latents.map((latent, at) => {
        const input = element("input", { type: "range", id: `latent-${at}`, min: latent.low, max: latent.high, step: "any" });
        const output = element("output");
        output.htmlFor = input.id;
        const step = (latent.high - latent.low) / 100;
        input.addEventListener("input", () => this._moved(at));
        input.addEventListener("keydown", (e) => { // steps of a hundredth: "any" has steps of its own
          const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[e.key];
          if (!by) return;
          e.preventDefault();
          input.value = Number(input.value) + by * step;
          this._moved(at);
        });
        this.inputs.push({ input, output, latent });
        return element("label", { className: "slider" }, element("span", {}, latent.name), input, output);
      });
      $("slider-list").replaceChildren(...list);
      $("more-sliders").hidden = list.length <= FEW;
      $("more-sliders").textContent = `All ${list.length} latents`;
      this._show(false);
      $("decoded").parentElement.parentElement.classList.toggle("bars", !overview.image);
      const active = `${overview.active} of ${overview.total} latents are active`;
      $("slider-note").textContent = source.isLive
        ? `${active}${overview.plane ? "." : "; the most active come first."}`
        : `${active}. ${overview.plane ? "The nearest of the exported pictures is shown." : "Each latent is moved alone from the centre, in exported steps."}`;
      this.centre();
    }
    _show(all) { this.inputs.forEach(({ input }, at) => { input.parentElement.hidden = !all && at >= FEW; }); }
    centre() { this.isFollowing = false; this.set(this.page.overview.latents.map((l) => l.centre), null); }
    /** Move to a datapoint, whose other latents the picture takes over. */
    follow(base, values) {
      [this.base, this.values] = [base, values];
      $("to-datapoint").disabled = false;
      if (this.page.source.isLive || this.page.overview.plane) this.set(values, base);
    }
    set(values, base) {
      this.from = base;
      this.inputs.forEach(({ input }, at) => { input.value = values[at]; });
      this._moved(null);
    }
    _moved(at) {
      if (at !== null && !this.page.source.isLive && !this.page.overview.plane) {
        this.inputs.forEach(({ input, latent }, other) => { if (other !== at) input.value = latent.centre; });
      }
      for (const { input, output, latent } of this.inputs) {
        output.textContent = number(Number(input.value));
        input.setAttribute("aria-valuetext", `${latent.name} = ${number(Number(input.value))}`);
      }
      const { map } = this.page, latents = this.inputs.map(({ input }) => Number(input.value));
      const known = map.columns.every((column) => column < latents.length);
      map.slider = at !== null && known ? map.columns.map((column) => latents[column]) : null;
      map.draw();
      this.decode(at);
    }
    async _decode(moved) {
      const values = this.inputs.map(({ input }) => Number(input.value));
      try {
        await paint($("decoded"), await this.page.source.decode(values, this.from, moved));
        const some = this.inputs.slice(0, 4).map(({ latent, output }) => `${latent.name} ${output.textContent}`).join(", ");
        $("decoded").setAttribute("aria-label", `Decoded picture at ${some}`);
        $("decoded").dataset.at = values.map((v) => v.toFixed(3)).join(" ");
      } catch (error) { this.page.say(error.message); }
    }
  }

  class RegionPanel {
    constructor(page) {
      this.page = page;
      this.count = 0;
      $("again").addEventListener("click", () => { this.count += 1; this.sample(); });
      for (const radio of document.querySelectorAll('input[name="source"]')) {
        radio.addEventListener("change", () => this.sample());
      }
    }
    build() {
      const { source, overview } = this.page;
      $("region-samples").classList.toggle("bars", !overview.image);
      if (!source.isLive) document.querySelector('#region [role="radiogroup"]').hidden = true;
    }
    async sample() {
      const { map, source } = this.page, { region, columns } = map;
      if (!region) return;
      const from = document.querySelector('input[name="source"]:checked').value;
      $("region-note").textContent = "Drawing …";
      try {
        const found = await source.sample(columns, region, from, this.count);
        map.samples = found.samples;
        map.draw();
        $("again").disabled = false;
        const share = `${number(100 * found.share, found.share < 0.1 ? 2 : 1)} %`;
        const what = from === "prior" ? `${share} of the prior’s mass lies in the region` : `${share} of the datapoints lie in the region`;
        $("region-note").textContent = found.found ? `${what}; ${found.found} draws of it.`
          : `${what}: nothing to draw. Choose a larger one, or the other source.`;
        $("region-samples").replaceChildren(...found.samples.map((s, i) =>
          element("div", { role: "listitem" }, picture(s.picture, `Sample ${i + 1} of the region`))));
      } catch (error) { $("region-note").textContent = error.message; }
    }
  }

  const ORDERS = { gap: -1, khat: -1, log_evidence: 1, ess: 1 }; // 1 for the least first

  class WorstPanel {
    constructor(page) {
      this.page = page;
      this.shown = 24;
      $("order").addEventListener("change", () => { this.shown = 24; this.update(); });
      $("weigh").addEventListener("click", () => page.weigh());
      $("more-worst").addEventListener("click", () => { this.shown += 48; this.update(); });
    }
    update() {
      const { figures, overview, source, panel, weighing } = this.page, by = $("order").value, values = figures[by];
      $("weigh").hidden = !source.isLive || Boolean(figures.trusted);
      $("weigh").disabled = Boolean(weighing);
      if (!values) return;
      const bad = (v) => (v === null ? Infinity : ORDERS[by] * v * 1); // what is not finite is worst
      const order = values.map((v, i) => i).sort((i, j) => {
        const [a, b] = [bad(values[i]), bad(values[j])];
        if (values[i] === null || values[j] === null) return (values[j] === null) - (values[i] === null);
        return a - b;
      }).slice(0, this.shown);
      const digits = by === "ess" ? 0 : 2;
      $("worst-list").classList.toggle("bars", !overview.image);
      $("worst-list").replaceChildren(...order.map((index) => {
        const button = element("button", { type: "button", aria: { label: `${this.page.name(index)}, ${$("order").selectedOptions[0].text.split(",")[0]} ${number(values[index], digits)}` } },
          picture(this.page.thumbnail(index), ""), element("span", { aria: { hidden: "true" } }, values[index] === null ? "∞" : number(values[index], digits)));
        button.firstChild.setAttribute("role", "presentation");
        button.dataset.index = index;
        if (panel.index === index) button.setAttribute("aria-current", "true");
        button.addEventListener("click", () => this.page.pick(index, true));
        return element("li", {}, button);
      }));
      $("more-worst").hidden = this.shown >= values.length;
      const { summary } = figures;
      $("worst-note").textContent = summary
        ? `log p(x) = ${number(summary.log_evidence)} ± ${number(summary.standard_error)}, ELBO ${number(summary.elbo)} nats on average; ` +
          `importance weights correct the guide at ${values.length - summary.untrusted} of ${values.length} datapoints.`
        : `${values.length} of ${overview.count} datapoints weighed.`;
    }
    mark(index) {
      for (const button of $("worst-list").querySelectorAll("button")) {
        if (Number(button.dataset.index) === index) button.setAttribute("aria-current", "true");
        else button.removeAttribute("aria-current");
      }
    }
  }

  Object.assign(window.Aevb, { SliderPanel, RegionPanel, WorstPanel });
})();
