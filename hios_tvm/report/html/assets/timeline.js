// The timeline: a panel for each origin, a row for each stream, thin rows for links.

const timelineView = {
  mode: "kind",
  panels: [],

  start() {
    this.canvas = byId("timeline-canvas");
    if (hasOneKind) this.mode = byId("timeline-colour").value = "stage";
    this.view = new Viewport(this.canvas, "x", () => ({ width: spanUs * 1.01, height: 1 }), (context) => this.draw(context));
    this.view.onPoint = (place, event) => this.point(place, event);
    this.view.onClick = (place) => selection.choose(this.find(place));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    byId("timeline-colour").addEventListener("change", (event) => {
      this.mode = event.target.value;
      this.legend();
      this.view.request();
    });
    byId("timeline-chain").addEventListener("change", (event) => {
      selection.showsChain = event.target.checked;
      selection.tell("lit");
    });
    selection.listen((what) => {
      if (what === "lit") this.legend();
      if (what === "chosen") this.reveal(selection.chosen);
      this.view.request();
    });
    this.layOut();
  },

  layOut() {
    const links = new Map();
    for (const one of timelines) {
      for (const event of one.events) {
        if (!event.isCopy) continue;
        const copy = copies[event.subject];
        links.set(copy.src + ">" + copy.dst, [copy.src, copy.dst]);
      }
    }
    const streams = report.devices.reduce((sum, device) => sum + device.streams, 0);
    const thick = streams > 16 ? 18 : 28;
    this.panels = [];
    let top = 4;
    for (const one of timelines) {
      const panel = { timeline: one, top, rows: [], row: new Map() };
      top += 24;
      report.devices.forEach((device, index) => {
        for (let stream = 0; stream < device.streams; stream += 1) {
          const label = device.streams === 1 ? device.name : device.name + " · " + stream;
          this.addRow(panel, "s" + index + ":" + stream, { label, top, height: thick, events: [] });
          top += thick + 2;
        }
        top += 4;
      });
      for (const [key, [src, dst]] of [...links].sort()) {
        const label = report.devices[src].name + " → " + report.devices[dst].name;
        this.addRow(panel, "l" + key, { label, top, height: 11, events: [], isLink: true });
        top += 13;
      }
      for (const event of one.events) {
        event.rows = [];
        const copy = event.isCopy ? copies[event.subject] : null;
        if (copy !== null) event.rows.push(panel.row.get("l" + copy.src + ">" + copy.dst));
        const device = copy === null ? operators[event.subject].device : copy.dst;
        if (event.stream !== null) event.rows.push(panel.row.get("s" + device + ":" + event.stream));
        else if (copy === null) event.rows.push(panel.row.get("s" + device + ":0"));
        for (const row of event.rows) row.events.push(event);
      }
      for (const row of panel.rows) row.events.sort((a, b) => a.start - b.start);
      panel.stages = this.stages(panel);
      panel.bottom = top;
      top += 14;
      this.panels.push(panel);
    }
    this.height = top + 18;
  },

  addRow(panel, key, row) {
    panel.rows.push(row);
    panel.row.set(key, row);
  },

  // Boxes of stages that have several groups.
  stages(panel) {
    const boxes = new Map();
    for (const event of panel.timeline.events) {
      if (event.isCopy) continue;
      const key = stageKey(operators[event.subject]);
      if (key === null || streamsOfStage.get(key).size < 2) continue;
      const row = event.rows[0];
      const box = boxes.get(key) || { key, start: Infinity, end: 0, top: Infinity, bottom: 0 };
      box.start = Math.min(box.start, event.start);
      box.end = Math.max(box.end, event.end);
      box.top = Math.min(box.top, row.top);
      box.bottom = Math.max(box.bottom, row.top + row.height);
      boxes.set(key, box);
    }
    return [...boxes.values()];
  },

  resize() {
    const context = this.view.context;
    context.font = "12px " + this.font();
    const widest = Math.max(...this.panels[0].rows.map((row) => context.measureText(row.label).width));
    this.view.inset = Math.ceil(Math.min(widest + 20, this.canvas.clientWidth * 0.3, 190));
    this.view.resize(this.height);
  },
  font() { return getComputedStyle(document.body).fontFamily; },

  draw(context) {
    const { view } = this;
    const { colours } = theme;
    const family = this.family || (this.family = this.font());
    const left = view.inset;
    const toX = (us) => left + (us - view.x) * view.scale;
    const fromUs = view.x;
    const toUs = view.x + (view.width - left) / view.scale;
    this.drawAxis(context, toX, fromUs, toUs, family);
    context.save();
    context.beginPath();
    context.rect(left, 0, view.width - left, view.height);
    context.clip();
    for (const panel of this.panels) this.drawPanel(context, panel, toX, fromUs, toUs, family);
    context.restore();
    context.textBaseline = "middle";
    for (const panel of this.panels) {
      context.textAlign = "left";
      context.font = "600 13px " + family;
      context.fillStyle = colours.ink;
      const first = this.panels[0].timeline.makespan;
      const { origin, makespan } = panel.timeline;
      let title = origin[0].toUpperCase() + origin.slice(1) + "  " + formatTime(makespan);
      if (panel !== this.panels[0] && first > 0) title += "  (" + (makespan >= first ? "+" : "−") + (Math.abs(makespan / first - 1) * 100).toFixed(1) + " %)";
      context.fillText(title, 10, panel.top + 12);
      context.textAlign = "right";
      for (const row of panel.rows) {
        context.font = (row.isLink ? "10.5px " : "12px ") + family;
        context.fillStyle = row.isLink ? colours.soft : colours.ink;
        context.fillText(this.fitted(context, row.label, left - 16), left - 9, row.top + row.height / 2);
      }
    }
  },

  fitted(context, label, room) {
    if (context.measureText(label).width <= room) return label;
    let short = label;
    while (short.length > 2 && context.measureText(short + "…").width > room) short = short.slice(0, -1);
    return short + "…";
  },

  drawAxis(context, toX, fromUs, toUs, family) {
    const { colours } = theme;
    const { view } = this;
    const step = roundStep(toUs - fromUs, (view.width - view.inset) / 110);
    const inMs = spanUs >= 2000;
    const unit = inMs ? 1e3 : 1;
    const digits = Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9));
    context.font = "11px " + family;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    for (let tick = Math.ceil(fromUs / step) * step; tick <= toUs; tick += step) {
      const x = Math.round(toX(tick)) + 0.5;
      context.fillStyle = colours.grid;
      context.fillRect(x, 24, 1, this.height - 44);
      context.fillStyle = colours.soft;
      const label = (tick / unit).toFixed(digits) + (inMs ? " ms" : " µs");
      if (x > view.inset - 1 && x < view.width - 24) context.fillText(label, x, this.height - 7);
    }
  },

  drawPanel(context, panel, toX, fromUs, toUs, family) {
    const { colours } = theme;
    const { view } = this;
    const { hover, chosen } = selection;
    context.fillStyle = theme.isDark ? "rgba(255,255,255,.035)" : "rgba(20,40,80,.035)";
    for (const row of panel.rows) context.fillRect(view.inset, row.top, view.width, row.height);
    const marked = [hover, chosen].map((item) => (item !== null && item !== undefined && item[0] === "o" ? stageKey(operators[+item.slice(1)]) : null));
    for (const box of panel.stages) {
      if (box.end < fromUs || box.start > toUs) continue;
      const isMarked = marked.includes(box.key);
      context.globalAlpha = isMarked ? 0.6 : 0.28;
      context.fillStyle = colours.stage;
      context.fillRect(toX(box.start), box.top - 1, (box.end - box.start) * view.scale, box.bottom - box.top + 2);
      context.globalAlpha = 1;
    }
    context.font = "11px " + family;
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (const row of panel.rows) {
      const inset = row.isLink ? 1 : 3;
      for (const event of row.events) {
        if (event.end < fromUs) continue;
        if (event.start > toUs) break;
        const x = toX(event.start);
        const width = Math.max(1, (event.end - event.start) * view.scale);
        let colour = event.isCopy ? colours.copy : colourFor(this.mode, operators[event.subject]);
        if (!selection.isLit(event.item)) colour = cachedMix(colour, theme.fade, 0.16);
        const slim = event.isCopy && !row.isLink ? row.height * 0.22 : 0;
        context.fillStyle = colour;
        context.fillRect(x, row.top + inset + slim, width > 3 ? width - 0.8 : width, row.height - 2 * (inset + slim));
        if (width > 30 && !event.isCopy) {
          const name = shortNames[event.subject];
          context.fillStyle = inkOn(colour);
          const from = Math.max(x, view.inset);
          const room = Math.min(x + width, view.width) - from - 9;
          if (room > 22) context.fillText(room > 6.6 * name.length ? name : this.fitted(context, name, room), from + 4.5, row.top + row.height / 2 + 0.5);
        }
      }
    }
    context.fillStyle = colours.ink;
    context.fillRect(toX(panel.timeline.makespan), panel.top + 22, 1.5, panel.bottom - panel.top - 22);
    if (report.lower_bound_us > 0) {
      context.strokeStyle = colours.bound;
      context.lineWidth = 1.5;
      context.setLineDash([2, 3]);
      context.beginPath();
      context.moveTo(toX(report.lower_bound_us), panel.top + 22);
      context.lineTo(toX(report.lower_bound_us), panel.bottom);
      context.stroke();
      context.setLineDash([]);
    }
    this.drawMarks(context, panel, toX);
  },

  // The item under the pointer and the chosen one, with lines from what they waited for.
  drawMarks(context, panel, toX) {
    const { view } = this;
    for (const item of new Set([selection.chosen, selection.hover])) {
      const event = item === null ? undefined : panel.timeline.ofItem.get(item);
      if (event === undefined) continue;
      context.strokeStyle = theme.colours.faint;
      context.lineWidth = 1.2;
      for (const [other, isSource] of this.related(item)) {
        const near = panel.timeline.ofItem.get(other);
        if (near === undefined) continue;
        const [first, second] = isSource ? [near, event] : [event, near];
        const [x1, y1] = [toX(first.end), first.rows[0].top + first.rows[0].height / 2];
        const [x2, y2] = [toX(second.start), second.rows[0].top + second.rows[0].height / 2];
        const bow = Math.max(10, Math.abs(x2 - x1) / 2);
        context.beginPath();
        context.moveTo(x1, y1);
        context.bezierCurveTo(x1 + bow, y1, x2 - bow, y2, x2, y2);
        context.stroke();
      }
      context.strokeStyle = theme.colours.select;
      context.lineWidth = item === selection.chosen ? 2.5 : 1.8;
      for (const each of event.rows) {
        context.strokeRect(toX(event.start) - 1, each.top + (each.isLink ? 0 : 2), Math.max(2, (event.end - event.start) * view.scale) + 2, each.height - (each.isLink ? 0 : 4));
      }
    }
  },

  // [item, whether it comes before]: copies stand between operators of two devices.
  related(item) {
    const index = +item.slice(1);
    if (item[0] === "c") {
      const copy = copies[index];
      const readers = copy.readers.map((reader) => ["o" + reader, false]);
      return copy.producer === null ? readers : [["o" + copy.producer, true], ...readers];
    }
    const device = operators[index].device;
    const found = [];
    copies.forEach((copy, at) => {
      if (copy.producer === index) found.push(["c" + at, false]);
      if (copy.dst === device && copy.readers.includes(index)) found.push(["c" + at, true]);
    });
    for (const source of sources[index]) if (operators[source].device === device) found.push(["o" + source, true]);
    for (const target of targets[index]) if (operators[target].device === device) found.push(["o" + target, false]);
    return found;
  },

  find(place) {
    const [x, y] = place;
    const us = this.view.x + (x - this.view.inset) / this.view.scale;
    const slack = 2 / this.view.scale;
    if (x < this.view.inset) return null;
    for (const panel of this.panels) {
      for (const row of panel.rows) {
        if (y < row.top || y > row.top + row.height) continue;
        let best = null;
        for (const event of row.events) {
          if (event.start - slack > us) break;
          if (event.end + slack >= us && (best === null || Math.abs(event.start + event.end - 2 * us) < Math.abs(best.start + best.end - 2 * us))) best = event;
        }
        if (best !== null) return best.item;
      }
    }
    return null;
  },

  point(place, event) {
    const item = place === null ? null : this.find(place);
    this.canvas.classList.toggle("on-item", item !== null);
    selection.setHover(item);
    inspector.tooltip(item, event);
  },

  // Left and right go along a row, up and down to the row beside, at the same time.
  key(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.key === "Escape") { selection.choose(null); return; }
    if (event.key === "Enter") { if (selection.chosen !== null) graphView.reveal(selection.chosen, true); return; }
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const rows = this.panels[this.panels.length - 1].rows.filter((row) => row.events.length > 0);
    const now = selection.chosen === null ? undefined : lastTimeline.ofItem.get(selection.chosen);
    if (now === undefined) { if (rows.length > 0) selection.choose(rows[0].events[0].item); return; }
    const row = rows.indexOf(now.rows[0]);
    let next;
    if (step[0] === 0) next = rows[row].events[clamp(rows[row].events.indexOf(now) + step[1], 0, rows[row].events.length - 1)];
    else {
      const middle = (now.start + now.end) / 2;
      const others = rows[clamp(row + step[0], 0, rows.length - 1)].events;
      next = others.reduce((best, other) => (Math.abs(other.start + other.end - 2 * middle) < Math.abs(best.start + best.end - 2 * middle) ? other : best), others[0]);
    }
    selection.choose(next.item);
  },

  // Bring an event into sight, moving no more than needed.
  reveal(item) {
    const event = item === null ? undefined : lastTimeline.ofItem.get(item);
    if (event === undefined) return;
    const { view } = this;
    const room = (view.width - view.inset) / view.scale;
    if (event.start < view.x || event.end > view.x + room) view.centre((event.start + event.end) / 2, 0);
  },

  legend() {
    const box = byId("timeline-legend");
    box.replaceChildren();
    if (this.mode === "kind") {
      const spent = new Map();
      for (const event of lastTimeline.events) {
        if (event.isCopy) continue;
        const kind = operators[event.subject].kind;
        spent.set(kind, (spent.get(kind) || 0) + event.end - event.start);
      }
      const total = [...spent.values()].reduce((sum, one) => sum + one, 0) || 1;
      for (const [kind, time] of [...spent].sort((a, b) => b[1] - a[1])) {
        box.append(legendButton(report.kinds[kind], kind + "  " + ((time / total) * 100).toFixed(0) + " %", { type: "kind", kind }));
      }
    } else report.devices.forEach((device, index) => box.append(legendButton(deviceColour(index), device.name, { type: "device", device: index })));
    if (copies.length > 0) box.append(legendButton(theme.colours.copy, "copy", { type: "copy" }));
    if (this.panels.some((panel) => panel.stages.length > 0)) box.append(make("span", {}, make("i", { class: "chip", style: "background:" + theme.colours.stage }), "stage of several groups"));
    if (report.lower_bound_us > 0) box.append(make("span", {}, make("i", { class: "chip bound" }), "lower bound " + formatTime(report.lower_bound_us)));
  },
};

function legendButton(colour, label, lit) {
  const same = selection.lit !== null && JSON.stringify(selection.lit) === JSON.stringify(lit);
  const button = make("button", { type: "button", "aria-pressed": String(same), title: "Bring out" }, make("i", { class: "chip", style: "background:" + colour }), label);
  button.addEventListener("click", () => selection.light(same ? null : lit));
  return button;
}
