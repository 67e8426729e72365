"use strict";
// The map: points in two columns, with zoom, a region, and keys for all that a pointer can do.
window.Aevb = window.Aevb || {};

(() => {
  const { variable } = window.Aevb;
  const NEAR = 14; // pixels within which a point is meant
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  class Plot {
    constructor(canvas) { this.canvas = canvas; this.view = { x: [0, 1], y: [0, 1] }; this.pad = [44, 12, 12, 34]; }
    resize() {
      const ratio = window.devicePixelRatio || 1;
      [this.width, this.height] = [this.canvas.clientWidth, this.canvas.clientHeight];
      this.canvas.width = Math.round(this.width * ratio);
      this.canvas.height = Math.round(this.height * ratio);
      this.context = this.canvas.getContext("2d");
      this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    get box() { // left, top, width, height
      const [left, top, right, bottom] = this.pad;
      return [left, top, this.width - left - right, this.height - top - bottom];
    }
    px(x) { const [left, , w] = this.box; return left + ((x - this.view.x[0]) / (this.view.x[1] - this.view.x[0])) * w; }
    py(y) { const [, top, , h] = this.box; return top + (1 - (y - this.view.y[0]) / (this.view.y[1] - this.view.y[0])) * h; }
    x(px) { const [left, , w] = this.box; return this.view.x[0] + ((px - left) / w) * (this.view.x[1] - this.view.x[0]); }
    y(py) { const [, top, , h] = this.box; return this.view.y[0] + (1 - (py - top) / h) * (this.view.y[1] - this.view.y[0]); }
    axes(names) {
      const c = this.context, [left, top, w, h] = this.box;
      c.strokeStyle = c.fillStyle = variable("--line");
      c.lineWidth = 1;
      c.font = `11px ${variable("--sans")}`;
      for (const [range, across] of [[this.view.x, true], [this.view.y, false]]) {
        for (const tick of ticks(range, across ? w / 70 : h / 60)) {
          const at = Math.round(across ? this.px(tick) : this.py(tick)) + 0.5;
          c.beginPath();
          if (across) { c.moveTo(at, top); c.lineTo(at, top + h); } else { c.moveTo(left, at); c.lineTo(left + w, at); }
          c.stroke();
          c.fillStyle = variable("--quiet");
          c.textAlign = across ? "center" : "right";
          c.textBaseline = across ? "top" : "middle";
          c.fillText(`${+tick.toFixed(6)}`.replace("-", "−"), across ? at : left - 6, across ? top + h + 5 : at);
        }
      }
      c.font = `600 12px ${variable("--sans")}`;
      c.fillStyle = variable("--ink");
      c.textAlign = "center";
      c.textBaseline = "bottom";
      c.fillText(names[0], left + w / 2, this.height - 1);
      c.save();
      c.translate(11, top + h / 2);
      c.rotate(-Math.PI / 2);
      c.textBaseline = "middle";
      c.fillText(names[1], 0, 0);
      c.restore();
    }
    clip(draw) {
      const c = this.context;
      c.save();
      c.beginPath();
      c.rect(...this.box);
      c.clip();
      draw(c);
      c.restore();
    }
    dots(c, rows, [a, b], colour, size, alpha = 1) {
      c.globalAlpha = alpha;
      c.fillStyle = colour;
      for (const row of rows) c.fillRect(this.px(row[a]) - size / 2, this.py(row[b]) - size / 2, size, size);
      c.globalAlpha = 1;
    }
    /** 95 % of a normal distribution with these moments. */
    ellipse(c, { mean, covariance }, [a, b], colour) {
      const [saa, sab, sbb] = [covariance[a][a], covariance[a][b], covariance[b][b]];
      const [middle, half] = [(saa + sbb) / 2, Math.hypot((saa - sbb) / 2, sab)];
      const angle = 0.5 * Math.atan2(2 * sab, saa - sbb);
      const [major, minor] = [middle + half, Math.max(middle - half, 0)].map((v) => Math.sqrt(5.991 * v));
      c.beginPath();
      for (let step = 0; step <= 72; step++) {
        const t = (step / 72) * 2 * Math.PI;
        const [u, v] = [major * Math.cos(t), minor * Math.sin(t)];
        c.lineTo(this.px(mean[a] + u * Math.cos(angle) - v * Math.sin(angle)),
          this.py(mean[b] + u * Math.sin(angle) + v * Math.cos(angle)));
      }
      c.strokeStyle = colour;
      c.lineWidth = 2;
      c.stroke();
    }
  }

  function ticks([low, high], count) {
    const raw = (high - low) / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + 1e-9; at += step) found.push(at);
    return found;
  }

  /** `on` is told of `hover`, `pick`, `region`, `sample` and `say`. */
  class ScatterMap extends Plot {
    constructor(canvas, on) {
      super(canvas);
      this.on = on;
      Object.assign(this, { columns: [0, 1], colours: [], faded: () => false, focus: null, selected: null,
        overlay: null, region: null, samples: [], slider: null, brushing: false, pictures: null, plane: null });
      new ResizeObserver(() => { this.resize(); this.draw(); }).observe(canvas);
      canvas.addEventListener("pointermove", (e) => this._moved(e));
      canvas.addEventListener("pointerdown", (e) => this._pressed(e));
      canvas.addEventListener("pointerup", (e) => this._released(e));
      canvas.addEventListener("pointercancel", () => { this.start = null; });
      canvas.addEventListener("pointerleave", () => this.on.hover(null));
      canvas.addEventListener("wheel", (e) => {
        e.preventDefault();
        this.zoom(Math.exp(e.deltaY * 0.0015), this._at(e));
      }, { passive: false });
      canvas.addEventListener("keydown", (e) => this._key(e));
    }
    load(overview) { this.data = overview; this.order = [...Array(overview.count).keys()]; }
    show(columns) { this.columns = columns; this.region = null; this.samples = []; this.fit(); }
    fit() {
      const pad = (values) => {
        const known = values.filter((v) => v !== null);
        const [low, high] = known.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
        const margin = 0.06 * (high - low) || 1;
        return [low - margin, high + margin];
      };
      const [a, b] = this.columns.map((c) => this.data.positions[c]);
      this.view = { x: pad(a), y: pad(b) };
      this.draw();
    }
    zoom(factor, centre) {
      const [x, y] = centre ? [this.x(centre[0]), this.y(centre[1])]
        : [(this.view.x[0] + this.view.x[1]) / 2, (this.view.y[0] + this.view.y[1]) / 2];
      for (const [key, at] of [["x", x], ["y", y]]) {
        const range = this.view[key].map((end) => at + (end - at) * factor);
        if (range[1] - range[0] > 1e-5 && range[1] - range[0] < 1e4) this.view[key] = range;
      }
      this.draw();
    }
    point(i) { return [this.px(this.data.positions[this.columns[0]][i]), this.py(this.data.positions[this.columns[1]][i])]; }
    draw() {
      if (!this.data || !this.width || this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this._draw(); });
    }
    _draw() {
      const c = this.context;
      c.clearRect(0, 0, this.width, this.height);
      this.axes(this.columns.map((column) => this.data.columns[column]));
      this.clip(() => {
        if (this.plane) this._plane(c);
        if (this.pictures) this._pictures(c); else this._points(c);
        this._overlay(c);
      });
    }
    _points(c) {
      const count = this.order.length, many = count > 5000;
      const size = many ? 3 : count > 2000 ? 4.5 : 6, radius = size / 2;
      let last = null;
      for (const faded of [true, false]) {
        c.globalAlpha = faded ? 0.1 : many ? 0.75 : 0.85;
        for (const i of this.order) {
          if (this.faded(i) !== faded) continue;
          const [x, y] = this.point(i);
          if (this.colours[i] !== last) c.fillStyle = last = this.colours[i];
          if (many) c.fillRect(x - radius, y - radius, size, size);
          else { c.beginPath(); c.arc(x, y, radius, 0, 7); c.fill(); }
        }
      }
      c.globalAlpha = 1;
    }
    /** Thumbnails where there is room, one in each cell of a grid. */
    _pictures(c) {
      const { columns, width, height } = this.data.sprite, h = 26, w = (h * width) / height, taken = new Map();
      c.imageSmoothingEnabled = false;
      for (const i of this.order) {
        if (this.faded(i)) continue;
        const [x, y] = this.point(i), [a, b] = [Math.round(x / (w + 4)), Math.round(y / (h + 4))];
        let isFree = true; // of the neighbouring cells too
        for (let n = 0; n < 9 && isFree; n++) {
          const other = taken.get(`${a + (n % 3) - 1},${b + Math.floor(n / 3) - 1}`);
          isFree = !other || Math.abs(other[0] - x) > w + 4 || Math.abs(other[1] - y) > h + 4;
        }
        if (!isFree) continue;
        taken.set(`${a},${b}`, [x, y]);
        c.fillStyle = this.colours[i];
        c.fillRect(x - w / 2 - 1.5, y - h / 2 - 1.5, w + 3, h + 3);
        c.drawImage(this.pictures, (i % columns) * width, Math.floor(i / columns) * height, width, height,
          x - w / 2, y - h / 2, w, h);
      }
    }
    _plane(c) {
      const [a, b] = this.columns.map((column) => this.data.latents[column]), { side } = this.data.plane;
      // the first and last pictures are centred on the ends of the sliders
      const half = [(a.high - a.low) / (side - 1) / 2, (b.high - b.low) / (side - 1) / 2];
      const [left, top] = [this.px(a.low - half[0]), this.py(b.high + half[1])];
      c.imageSmoothingEnabled = false;
      c.globalAlpha = 0.8;
      c.drawImage(this.plane, left, top, this.px(a.high + half[0]) - left, this.py(b.low - half[1]) - top);
      c.globalAlpha = 1;
    }
    _overlay(c) {
      const mark = variable("--mark"), guide = variable("--guide"), chains = variable("--chains");
      const { overlay } = this;
      if (overlay) {
        this.dots(c, overlay.draws || [], this.columns, chains, 3, 0.6);
        this.ellipse(c, overlay.guide, this.columns, guide);
      }
      for (const { at } of this.samples) {
        const [x, y] = [this.px(at[this.columns[0]]), this.py(at[this.columns[1]])];
        c.strokeStyle = mark;
        c.lineWidth = 1.5;
        c.beginPath();
        c.moveTo(x - 4, y - 4); c.lineTo(x + 4, y + 4); c.moveTo(x - 4, y + 4); c.lineTo(x + 4, y - 4);
        c.stroke();
      }
      if (this.region) {
        const [l, r, b, t] = this.region;
        c.strokeStyle = variable("--accent");
        c.lineWidth = 2;
        c.setLineDash([6, 4]);
        c.strokeRect(this.px(l), this.py(t), this.px(r) - this.px(l), this.py(b) - this.py(t));
        c.setLineDash([]);
        c.globalAlpha = 0.1;
        c.fillStyle = variable("--accent");
        c.fillRect(this.px(l), this.py(t), this.px(r) - this.px(l), this.py(b) - this.py(t));
        c.globalAlpha = 1;
      }
      if (this.slider) this._ring(c, this.px(this.slider[0]), this.py(this.slider[1]), 5, variable("--accent"), true);
      if (this.selected !== null) this._ring(c, ...this.point(this.selected), 8, mark, false);
      if (this.focus !== null && document.activeElement === this.canvas) {
        this._ring(c, ...this.point(this.focus), 11, variable("--accent"), false);
      }
    }
    _ring(c, x, y, radius, colour, diamond) {
      for (const [width, stroke] of [[5, variable("--card")], [2.5, colour]]) {
        c.beginPath();
        if (diamond) { c.moveTo(x - radius, y); c.lineTo(x, y - radius); c.lineTo(x + radius, y); c.lineTo(x, y + radius); c.closePath(); } else c.arc(x, y, radius, 0, 7);
        [c.lineWidth, c.strokeStyle] = [width, stroke];
        c.stroke();
      }
    }
    nearest([px, py], within = NEAR) {
      let best = null, least = within * within;
      for (const i of this.order) {
        if (this.faded(i)) continue;
        const [x, y] = this.point(i), d = (x - px) ** 2 + (y - py) ** 2;
        if (d < least) [best, least] = [i, d];
      }
      return best;
    }
    _at(e) { const box = this.canvas.getBoundingClientRect(); return [e.clientX - box.left, e.clientY - box.top]; }
    _pressed(e) {
      if (e.button !== 0) return;
      this.start = { at: this._at(e), view: { x: [...this.view.x], y: [...this.view.y] }, moved: false };
      if (e.pointerType !== "touch" || this.brushing) this.canvas.setPointerCapture(e.pointerId);
    }
    _moved(e) {
      const at = this._at(e), { start } = this;
      if (!start) { this.on.hover(e.pointerType === "touch" ? null : this.nearest(at), at); return; }
      const [dx, dy] = [at[0] - start.at[0], at[1] - start.at[1]];
      start.moved = start.moved || Math.hypot(dx, dy) > 4;
      if (!start.moved) return;
      this.on.hover(null);
      if (this.brushing) {
        const xs = [this.x(start.at[0]), this.x(at[0])], ys = [this.y(start.at[1]), this.y(at[1])];
        this.region = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      } else if (e.pointerType !== "touch") {
        const [, , w, h] = this.box, { x, y } = start.view;
        this.view = { x: x.map((v) => v - (dx / w) * (x[1] - x[0])), y: y.map((v) => v + (dy / h) * (y[1] - y[0])) };
      }
      this.draw();
    }
    _released(e) {
      const { start } = this;
      this.start = null;
      if (!start) return;
      if (!start.moved) {
        const i = this.nearest(this._at(e), e.pointerType === "touch" ? 26 : NEAR);
        if (i !== null) { this.focus = i; this.on.pick(i); }
      } else if (this.brushing && this.region) this.on.sample();
    }
    _key(e) {
      if (e.ctrlKey || e.metaKey || e.altKey) return;
      const arrow = ARROWS[e.key];
      if (arrow && this.brushing) this._moveRegion(arrow, e.shiftKey);
      else if (arrow) this._step(arrow);
      else if (e.key === "Enter" || e.key === " ") {
        if (this.brushing && this.region) this.on.sample();
        else if (this.focus !== null) this.on.pick(this.focus);
      } else if (e.key === "+" || e.key === "=") this.zoom(0.75, this._centre());
      else if (e.key === "-") this.zoom(1 / 0.75, this._centre());
      else if (e.key === "0") this.fit();
      else if (e.key === "r") this.on.region();
      else if (e.key === "Escape") { if (this.brushing) this.on.region(); this.region = null; this.samples = []; this.draw(); } else return;
      e.preventDefault();
    }
    _centre() { return this.focus === null ? null : this.point(this.focus); }
    _step([dx, dy]) {
      if (this.focus === null) {
        const [left, top, w, h] = this.box;
        this.focus = this.selected ?? this.nearest([left + w / 2, top + h / 2], 1e6);
      } else {
        const [x, y] = this.point(this.focus);
        let best = null, least = Infinity;
        for (const i of this.order) { // near, and about in that direction
          if (i === this.focus || this.faded(i)) continue;
          const [px, py] = this.point(i), along = (px - x) * dx - (py - y) * dy, aside = Math.abs((px - x) * dy + (py - y) * dx);
          const cost = along + 3 * aside;
          if (along > 1 && aside <= along && cost < least) [best, least] = [i, cost];
        }
        if (best !== null) this.focus = best;
      }
      if (this.focus === null) return;
      this.on.hover(this.focus, this.point(this.focus));
      this.on.say(this.focus);
      this.draw();
    }
    _moveRegion([dx, dy], size) {
      const [w, h] = [this.view.x[1] - this.view.x[0], this.view.y[1] - this.view.y[0]];
      const [l, r, b, t] = this.region;
      const [sx, sy] = [(dx * w) / 40, (dy * h) / 40];
      if (size) this.region = [l, Math.max(r + sx, l + w / 80), b, Math.max(t + sy, b + h / 80)];
      else this.region = [l + sx, r + sx, b + sy, t + sy];
      this.on.say(null);
      this.draw();
    }
    /** Begin or end the selection of a region; with keys it starts around the middle or the focus. */
    setBrushing(on, byKey) {
      this.brushing = on;
      this.canvas.classList.toggle("brushing", on);
      if (on && !this.region && byKey) {
        const at = this._centre(), [w, h] = [this.view.x[1] - this.view.x[0], this.view.y[1] - this.view.y[0]];
        const [x, y] = at ? [this.x(at[0]), this.y(at[1])] : [this.view.x[0] + w / 2, this.view.y[0] + h / 2];
        this.region = [x - w / 10, x + w / 10, y - h / 10, y + h / 10];
      }
      this.draw();
    }
  }

  Object.assign(window.Aevb, { Plot, ScatterMap });
})();
