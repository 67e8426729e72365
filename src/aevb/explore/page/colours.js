"use strict";
// Colours of classes and of numbers, readable on light and dark ground.
window.Aevb = window.Aevb || {};

(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // ten hues of like weight; the eleventh and twelfth are greys
  const CLASSES = [
    "#4e79d7", "#f28e2b", "#d94f55", "#2fa7a0", "#4da04a", "#c9a227", "#a86bc9", "#ef7fa0", "#95674d",
    "#5fb0e6", "#8b929b", "#5a616b",
  ];
  // viridis, without its ends that one of the grounds would swallow
  const RAMP = { light: ["#482878", "#3e4a89", "#31688e", "#21918c", "#35b779", "#8fd744", "#d8cf1a"],
    dark: ["#6f53c4", "#5b78d6", "#3f9ad0", "#2fb3a6", "#4cc97f", "#a3de4d", "#f3e63a"] };

  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  function ramp(share) {
    const stops = dark.matches ? RAMP.dark : RAMP.light;
    const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
    const left = Math.min(Math.floor(place), stops.length - 2);
    const [a, b] = [channels(stops[left]), channels(stops[left + 1])];
    return `rgb(${a.map((value, i) => Math.round(value + (place - left) * (b[i] - value))).join(",")})`;
  }

  /** Numbers as colours, in 24 steps between the 1 and 99 % quantiles or the given bounds. */
  function scaleOf(values, bounds) {
    const known = values.filter((v) => v !== null && v !== undefined).sort((a, b) => a - b);
    const at = (share) => known[Math.min(known.length - 1, Math.floor(share * known.length))];
    let [low, high] = bounds || (known.length ? [at(0.01), at(0.99)] : [0, 1]);
    if (!(high > low)) high = low + 1;
    const step = (v) => Math.round(23 * Math.min(Math.max((v - low) / (high - low), 0), 1)) / 23;
    return { low, high, colour: (v) => (v === null || v === undefined ? null : ramp(step(v))) };
  }

  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  Object.assign(window.Aevb, { CLASSES, ramp, scaleOf, variable, dark });
})();
