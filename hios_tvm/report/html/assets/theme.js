// Light, dark, or as the system says; and the colours of the style sheet for the canvases.

const theme = {
  names: ["auto", "light", "dark"],
  current: "auto",
  colours: {},
  isDark: false,
  listeners: [],

  start() {
    try { this.current = localStorage.getItem("hios-report-theme") || "auto"; } catch { /* none of a file */ }
    if (!this.names.includes(this.current)) this.current = "auto";
    byId("theme").addEventListener("click", () => {
      this.set(this.names[(this.names.indexOf(this.current) + 1) % this.names.length]);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.apply());
    this.apply();
  },
  set(name) {
    this.current = name;
    try { localStorage.setItem("hios-report-theme", name); } catch { /* not kept, then */ }
    this.apply();
  },
  apply(forced) {
    const name = forced || this.current;
    const root = document.documentElement;
    if (name === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", name);
    byId("theme").textContent = "Theme: " + this.current;
    this.isDark = name === "dark" || (name === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
    this.fade = this.isDark ? "#171c24" : "#ffffff"; // what is not brought out goes towards this
    const style = getComputedStyle(root);
    for (const key of ["ink", "soft", "faint", "line", "grid", "well", "paper", "copy", "chain", "bound", "stage", "select", "accent", "idle"]) {
      this.colours[key] = style.getPropertyValue("--" + key).trim();
    }
    for (const listener of this.listeners) listener();
  },
};

// A share of one colour on another, both #rrggbb.
function mix(colour, other, share) {
  const part = (text, at) => parseInt(text.slice(at, at + 2), 16);
  return "#" + [1, 3, 5].map((at) => Math.round(part(colour, at) * share + part(other, at) * (1 - share)).toString(16).padStart(2, "0")).join("");
}

// Black or white, whichever reads better.
function inkOn(colour) {
  const part = (at) => parseInt(colour.slice(at, at + 2), 16) / 255;
  return 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5) > 0.45 ? "#141a22" : "#ffffff";
}

const mixed = new Map();
function cachedMix(colour, other, share) {
  const key = colour + other + share;
  if (!mixed.has(key)) mixed.set(key, mix(colour, other, share));
  return mixed.get(key);
}

function deviceColour(device) {
  const row = report.devices[device];
  return theme.isDark ? row.dark_colour : row.colour;
}

// Neighbouring stages of a device differ in lightness, three steps in turn.
function stageColour(operator) {
  const base = deviceColour(operator.device);
  if (stageKey(operator) === null) return base;
  const step = operator.stage % 3;
  return step === 0 ? base : cachedMix(base, theme.colours.paper, step === 1 ? 0.72 : 0.48);
}

// From the paper's colour to the accent, by time alone.
function timeColour(operator) {
  return cachedMix(theme.colours.chain, theme.colours.idle, Math.round(Math.sqrt(operator.solo_us / longestSolo) * 20) / 20);
}

function colourFor(mode, operator) {
  if (mode === "kind") return report.kinds[operator.kind];
  return mode === "time" ? timeColour(operator) : stageColour(operator);
}
