// The graph: layers from left to right, placed beforehand; here they are only drawn.

const STEP_Y = 36, NODE_W = 84, NODE_H = 24, MARGIN = 40;
// Wide layers get more room between them: steep lines cannot be followed.
const STEP_X = NODE_W + clamp((report.rows * STEP_Y * 1.9) / Math.max(1, report.layers) - NODE_W, 28, 140);

const graphView = {
  mode: "stage",

  start() {
    this.canvas = byId("graph-canvas");
    this.extent = {
      width: Math.max(0, report.layers - 1) * STEP_X + NODE_W + 2 * MARGIN,
      height: report.rows * STEP_Y + NODE_H + 2 * MARGIN,
    };
    this.nodes = operators.map((operator) => [this.wx(operator.x), this.wy(operator.y)]);
    this.layers = Array.from({ length: report.layers }, () => []);
    operators.forEach((operator, index) => this.layers[operator.x].push(index));
    for (const layer of this.layers) layer.sort((a, b) => operators[a].y - operators[b].y);
    this.prepareEdges();
    this.view = new Viewport(this.canvas, "xy", () => this.extent, (context) => this.draw(context));
    overview.start(this.view);
    this.view.onPoint = (place, event) => this.point(place, event);
    this.view.onClick = (place) => selection.choose(this.find(place));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    byId("graph-colour").addEventListener("change", (event) => {
      this.mode = event.target.value;
      this.legend();
      this.view.request();
    });
    byId("find").addEventListener("input", (event) => {
      const text = event.target.value.trim().toLowerCase();
      selection.light(text === "" ? null : { type: "find", text });
    });
    byId("find").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || selection.lit === null) return;
      const found = operators.findIndex((_, index) => selection.isLit("o" + index));
      if (found >= 0) { selection.choose("o" + found); this.reveal("o" + found, true); }
    });
    selection.listen((what) => {
      if (what === "lit") this.legend();
      if (what === "chosen" && document.activeElement !== this.canvas) this.reveal(selection.chosen, false);
      this.view.request();
    });
  },

  wx(layer) { return MARGIN + NODE_W / 2 + layer * STEP_X; },
  wy(row) { return MARGIN + NODE_H / 2 + row * STEP_Y; },

  // Curves of an edge in world units; wires of one tensor share their bends, and so their ink.
  prepareEdges() {
    this.edges = report.edges.map(([source, target, bends]) => {
      const stops = [this.nodes[source], ...bends.map(([x, y]) => [this.wx(x), this.wy(y)]), this.nodes[target]];
      const curves = [];
      for (let i = 0; i + 1 < stops.length; i += 1) {
        const [from, to] = [stops[i], stops[i + 1]];
        const x1 = from[0] + (i === 0 ? NODE_W / 2 : 0);
        const x2 = to[0] - (i + 2 === stops.length ? NODE_W / 2 : 0);
        curves.push([x1, from[1], x2, to[1]]);
      }
      const crosses = operators[source].device !== operators[target].device;
      return { source, target, curves, crosses, from: stops[0][0], to: stops[stops.length - 1][0] };
    });
  },

  resize() {
    const width = this.canvas.clientWidth;
    const whole = width / this.extent.width;
    // A long network starts readable at its inputs rather than whole and too small.
    const scale = Math.max(whole, Math.min(0.62, 480 / this.extent.height));
    overview.resize(width, this.extent);
    this.view.resize(Math.round(clamp(this.extent.height * scale, 200, Math.min(640, window.innerHeight * 0.75))));
    if (this.placed) return;
    this.placed = true;
    if (scale > whole * 1.3) this.view.centre(0, this.extent.height / 2, Math.max(scale, 0.34));
  },

  draw(context) {
    const { view } = this;
    const { colours } = theme;
    const box = { left: view.x - NODE_W, right: view.x + view.width / view.scale + NODE_W, top: view.y - NODE_H, bottom: view.y + view.height / view.scale + NODE_H };
    context.save();
    context.scale(view.scale, view.scale);
    context.translate(-view.x, -view.y);
    const line = Math.max(1.1, 0.8 / view.scale);
    const focus = new Set([selection.hover, selection.chosen].filter((item) => item !== null && item !== undefined).flatMap((item) => this.operatorsOf(item)));
    this.strokeEdges(context, box, (edge) => !edge.crosses, cachedMix(colours.faint, colours.well, 0.55), line, []);
    this.strokeEdges(context, box, (edge) => edge.crosses, colours.copy, line * 1.15, [5, 4]);
    if (focus.size > 0) this.strokeEdges(context, box, (edge) => focus.has(edge.source) || focus.has(edge.target), colours.select, line * 1.5, []);
    const marked = new Set([...focus].map((index) => stageKey(operators[index])).filter((key) => key !== null && streamsOfStage.get(key).size > 1));
    const withText = view.scale > 0.5;
    if (withText) {
      context.font = "11px " + (this.family || (this.family = timelineView.font()));
      context.textBaseline = "middle";
      context.textAlign = "center";
    }
    const [first, last] = [Math.floor((box.left - MARGIN - NODE_W) / STEP_X), Math.ceil((box.right - MARGIN) / STEP_X)];
    for (let layer = Math.max(0, first); layer <= Math.min(report.layers - 1, last); layer += 1) {
      for (const index of this.layers[layer]) this.drawNode(context, index, box, marked, withText, line);
    }
    context.restore();
    overview.draw();
  },

  strokeEdges(context, box, wanted, colour, width, dash) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.beginPath();
    for (const edge of this.edges) {
      if (edge.to < box.left || edge.from > box.right || !wanted(edge)) continue;
      for (const [x1, y1, x2, y2] of edge.curves) {
        if (x2 < box.left || x1 > box.right || Math.max(y1, y2) < box.top || Math.min(y1, y2) > box.bottom) continue;
        const bend = (x2 - x1) * 0.5;
        context.moveTo(x1, y1);
        if (y1 === y2) context.lineTo(x2, y2); else context.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2);
      }
    }
    context.stroke();
    context.setLineDash([]);
  },

  drawNode(context, index, box, marked, withText, line) {
    const [x, y] = this.nodes[index];
    if (y < box.top || y > box.bottom) return;
    const operator = operators[index];
    const item = "o" + index;
    let colour = colourFor(this.mode, operator);
    if (!selection.isLit(item)) colour = cachedMix(colour, theme.fade, 0.16);
    const [left, top] = [x - NODE_W / 2, y - NODE_H / 2];
    context.fillStyle = colour;
    if (withText) {
      context.beginPath();
      context.roundRect(left, top, NODE_W, NODE_H, 5);
      context.fill();
      context.fillStyle = inkOn(colour);
      context.fillText(this.label(context, operator), x, y + 0.5);
    } else context.fillRect(left, top, NODE_W, NODE_H);
    const isChosen = item === selection.chosen;
    if (isChosen || item === selection.hover) this.ring(context, left, top, theme.colours.select, line * (isChosen ? 3 : 2), 2);
    else if (marked.has(stageKey(operator))) this.ring(context, left, top, theme.colours.stage, line * 2.4, 2);
    else if (selection.showsChain && lastTimeline.chain.has(item)) this.ring(context, left, top, theme.colours.chain, line * 2.4, 2);
  },

  ring(context, left, top, colour, width, gap) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.roundRect(left - gap, top - gap, NODE_W + 2 * gap, NODE_H + 2 * gap, 6);
    context.stroke();
  },

  label(context, operator) {
    if (operator.label === undefined) operator.label = timelineView.fitted(context, hasOneKind ? operator.name : operator.kind, NODE_W - 8);
    return operator.label;
  },

  operatorsOf(item) {
    const index = +item.slice(1);
    if (item[0] === "o") return [index];
    const { producer, readers } = copies[index];
    return producer === null ? [...readers] : [producer, ...readers];
  },

  find([px, py]) {
    const x = this.view.x + px / this.view.scale;
    const y = this.view.y + py / this.view.scale;
    const slack = 3 / this.view.scale;
    const layer = this.layers[Math.round((x - MARGIN - NODE_W / 2) / STEP_X)];
    const found = (layer || []).find((index) => Math.abs(this.nodes[index][0] - x) <= NODE_W / 2 + slack && Math.abs(this.nodes[index][1] - y) <= NODE_H / 2 + slack);
    return found === undefined ? null : "o" + found;
  },

  point(place, event) {
    const item = place === null ? null : this.find(place);
    this.canvas.classList.toggle("on-item", item !== null);
    selection.setHover(item);
    inspector.tooltip(item, event);
  },

  // Left and right follow the longest edge, up and down stay in the layer.
  key(event) {
    if (event.key === "Escape") { selection.choose(null); return; }
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    const now = selection.chosen === null ? undefined : this.operatorsOf(selection.chosen)[0];
    let next;
    if (now === undefined) next = (this.layers[0] || [])[0];
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const near = event.key === "ArrowLeft" ? sources[now] : targets[now];
      next = near.reduce((best, other) => (best === undefined || operators[other].solo_us > operators[best].solo_us ? other : best), undefined);
    } else {
      const layer = this.layers[operators[now].x];
      next = layer[layer.indexOf(now) + (event.key === "ArrowUp" ? -1 : 1)];
    }
    if (next === undefined) return;
    selection.choose("o" + next);
    this.reveal("o" + next, false);
  },

  // Bring an operator into sight; `closer` makes it readable as well.
  reveal(item, closer) {
    if (item === null || this.view.width === 0) return;
    const [index] = this.operatorsOf(item);
    if (index === undefined) return;
    const { view } = this;
    const [x, y] = this.nodes[index];
    const isSeen = x > view.x && x < view.x + view.width / view.scale && y > view.y && y < view.y + view.height / view.scale;
    if (!isSeen || closer) view.centre(x, y, closer ? Math.max(view.scale, 0.8) : undefined);
  },

  legend() {
    const box = byId("graph-legend");
    box.replaceChildren();
    if (this.mode === "stage") {
      report.devices.forEach((device, index) => box.append(legendButton(deviceColour(index), device.name, { type: "device", device: index })));
      if (hasStages) box.append(make("span", {}, "lighter and darker: one stage after the other"));
    } else if (this.mode === "kind") {
      for (const kind of Object.keys(report.kinds)) box.append(legendButton(report.kinds[kind], kind, { type: "kind", kind }));
    } else box.append(make("span", {}, make("i", { class: "chip", style: "background:" + theme.colours.chain }), "the longer, the stronger; at most " + formatTime(longestSolo)));
    if (this.edges.some((edge) => edge.crosses)) box.append(make("span", {}, make("i", { class: "chip line" }), "between devices"));
  },
};
