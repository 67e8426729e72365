"use strict";
// Where the page gets its answers: a server that computes, or a file that was written in advance.
window.Aevb = window.Aevb || {};

(() => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  async function ask(path, method = "GET", body = undefined) {
    let answer;
    try {
      answer = await fetch(`api/${path}`, {
        method, body: body && JSON.stringify(body), headers: body ? { "content-type": "application/json" } : {},
      });
    } catch {
      throw new Error("The server does not answer: is aevb explore still running?");
    }
    const found = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
    if (!answer.ok) throw new Error(found.error || `status ${answer.status}`);
    return found;
  }

  class Live {
    constructor() {
      this.isLive = true;
      this.sheets = { sprite: "api/sprite.png", plane: "api/plane.png" };
    }
    overview() { return ask("overview"); }
    datapoint(index) { return ask(`datapoint/${index}`); }
    async decode(values, base) { return (await ask("decode", "POST", { values, base })).picture; }
    sample(columns, region, source, draw) {
      return ask("sample", "POST", { columns, region, source, draw, num: 24 });
    }
    /** Start a computation or join it; `seen` is called with every state of it. */
    async run(kind, index, seen) {
      let job = await ask("jobs", "POST", kind === "weigh" ? { kind } : { kind, index });
      const stop = () => ask(`jobs/${job.name}`, "DELETE").catch(() => {});
      const figures = {};
      for (;;) {
        for (const [name, values] of Object.entries(job.figures || {})) {
          figures[name] = (figures[name] || []).slice(0, job.since || 0).concat(values);
        }
        seen({ ...job, figures: job.figures ? figures : undefined }, stop);
        if (job.state !== "running") break;
        await wait(job.figures ? 800 : 300);
        const since = figures.khat ? `?since=${figures.khat.length}` : "";
        job = await ask(`jobs/${job.name}${since}`);
      }
      if (job.state === "failed") throw new Error(job.error);
      return job;
    }
  }

  class Exported {
    constructor(content) {
      this.isLive = false;
      this.content = content;
      this.sheets = { sprite: "sprite.png", plane: "plane.png", rebuilt: "reconstructions.png",
        sliders: "sliders.png", prior: "prior.png" };
    }
    async overview() { return this.content.overview; }
    _cell(sheet, cell, columns) {
      const { width, height, columns: own } = this.content.overview.sprite;
      return { sheet: this.sheets[sheet], cell, columns: columns || own, width, height };
    }
    async datapoint(index) {
      return { data: this._cell("sprite", index), reconstruction: this._cell("rebuilt", index), samples: [],
        ...this.content.datapoints[index] };
    }
    async decode(values, base, moved) {
      const { overview, sliders } = this.content;
      const share = (at) => {
        const { low, high } = overview.latents[at];
        return Math.min(Math.max((values[at] - low) / (high - low), 0), 1);
      };
      if (overview.plane) {
        const last = overview.plane.side - 1;
        const [column, row] = [Math.round(share(0) * last), Math.round((1 - share(1)) * last)];
        return this._cell("plane", row * (last + 1) + column, last + 1);
      }
      const at = moved || 0;
      return this._cell("sliders", at * sliders.stops + Math.round(share(at) * (sliders.stops - 1)), sliders.stops);
    }
    async sample(columns, region, source, draw) {
      const { at, sprite } = this.content.prior;
      const inside = at.map((p, i) => i).filter((i) => this._inside(columns, region, at[i]));
      const start = inside.length ? (24 * draw) % inside.length : 0;
      const some = [...inside.slice(start), ...inside.slice(0, start)].slice(0, 24);
      const samples = some.map((i) => ({ at: at[i], picture: this._cell("prior", i, sprite.columns) }));
      return { samples, share: inside.length / at.length, found: samples.length };
    }
    _inside(columns, [left, right, bottom, top], p) {
      const [x, y] = [p[columns[0]], p[columns[1]]];
      return x >= left && x <= right && y >= bottom && y <= top;
    }
    async run(kind, index, seen) {
      const { weighed, why, trials } = this.content;
      const found = kind === "weigh" ? weighed : trials[index];
      if (!found) {
        throw new Error(kind === "weigh" ? why : "The chains of this datapoint are not in this export.");
      }
      const job = { ...found, state: "done", name: kind };
      seen(job, () => {});
      return job;
    }
    has(index) { return index in this.content.trials; }
  }

  // Pictures: an address, or a cell of a sheet.
  const loaded = new Map();
  function image(address) {
    if (!loaded.has(address)) {
      loaded.set(address, new Promise((done, failed) => {
        const found = new Image();
        found.onload = () => done(found);
        found.onerror = () => failed(new Error("a picture could not be loaded"));
        found.src = address;
      }));
      if (loaded.size > 400) loaded.delete([...loaded.keys()].find((key) => key.startsWith("data:")));
    }
    return loaded.get(address);
  }

  /** Draw a picture pixel by pixel into a canvas, which the style then enlarges. */
  async function paint(canvas, picture) {
    canvas.painted = picture;
    const { sheet = picture, cell = 0, columns = 1, width = 0, height = 0 } = picture.sheet ? picture : {};
    const found = await image(sheet);
    if (canvas.painted !== picture) return; // another has taken its place
    const [w, h] = [width || found.width, height || found.height];
    [canvas.width, canvas.height] = [w, h];
    const [left, top] = [(cell % columns) * w, Math.floor(cell / columns) * h];
    canvas.getContext("2d").drawImage(found, left, top, w, h, 0, 0, w, h);
  }

  const source = () => (window.AEVB_EXPORT ? new Exported(window.AEVB_EXPORT) : new Live());
  Object.assign(window.Aevb, { source, image, paint });
})();
