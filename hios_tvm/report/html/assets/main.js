// Start everything, and follow the window, the theme and the printer.

function resizeAll() {
  timelineView.resize();
  graphView.resize();
}

timelineView.start();
graphView.start();
inspector.start();
operatorTable.start();
theme.listeners.push(() => {
  timelineView.legend();
  graphView.legend();
  timelineView.view.request();
  graphView.view.request();
});
theme.start();
resizeAll();
new ResizeObserver(() => {
  if (timelineView.canvas.clientWidth !== timelineView.view.width) resizeAll();
}).observe(byId("content"));

const pictures = { timeline: timelineView, graph: graphView };
document.addEventListener("click", (event) => {
  const button = event.target.closest ? event.target.closest("[data-zoom]") : null;
  if (button === null) return;
  const [picture, what] = button.dataset.zoom.split(":");
  const { view } = pictures[picture];
  if (what === "fit") view.fit(); else view.zoom(what === "in" ? 1.6 : 1 / 1.6);
});

// On paper: light, whole, and sharp.
byId("print").addEventListener("click", () => window.print());
window.addEventListener("beforeprint", () => {
  theme.apply("light");
  for (const { view } of Object.values(pictures)) {
    view.kept = { x: view.x, y: view.y, scale: view.scale };
    view.ratio = 3;
    view.isFit = true;
    view.resize(view.height);
    view.drawNow();
  }
});
window.addEventListener("afterprint", () => {
  theme.apply();
  for (const { view } of Object.values(pictures)) {
    view.ratio = undefined;
    Object.assign(view, view.kept, { isFit: false });
    view.resize(view.height);
  }
});

// The section in sight is marked in the navigation.
const links = new Map([...document.querySelectorAll(".bar-top nav a")].map((link) => [link.hash.slice(1), link]));
const sight = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.classList.remove("here");
    links.get(entry.target.id)?.classList.add("here");
  }
}, { rootMargin: "-20% 0px -70% 0px" });
for (const id of links.keys()) { const found = byId(id); if (found) sight.observe(found); }
document.documentElement.dataset.ready = "yes";

// For tests and for the curious: what the page knows.
window.hiosReport = { report, selection, theme, timeline: timelineView, graph: graphView };
