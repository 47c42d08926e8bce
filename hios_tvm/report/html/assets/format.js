// Figures as people read them, and elements.

function formatTime(us) {
  if (us < 1e3) return us.toFixed(us < 10 ? 2 : 1) + " µs";
  return us < 1e6 ? (us / 1e3).toFixed(2) + " ms" : (us / 1e6).toFixed(2) + " s";
}

function formatBytes(size) {
  if (size < 1e3) return size + " B";
  if (size < 1e6) return (size / 1e3).toFixed(1) + " kB";
  return size < 1e9 ? (size / 1e6).toFixed(1) + " MB" : (size / 1e9).toFixed(2) + " GB";
}

function formatWork(flops) {
  return flops >= 1e9 ? (flops / 1e9).toFixed(2) + " GFLOP" : (flops / 1e6).toFixed(2) + " MFLOP";
}

// A round step so that about `count` of them make `span`.
function roundStep(span, count) {
  const rough = span / Math.max(1, count);
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const lead = rough / power;
  return (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10) * power;
}

function byId(id) { return document.getElementById(id); }

// An element with text or children; text is never taken for markup.
function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function clamp(value, low, high) { return Math.min(high, Math.max(low, value)); }
