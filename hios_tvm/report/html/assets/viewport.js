// A canvas that is panned and zoomed: pointer, wheel, two fingers and keys in; `draw` when needed.

class Viewport {
  // `limits` gives the world's extent, {width, height}; `axes` is "x" or "xy".
  constructor(canvas, axes, limits, draw) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.axes = axes;
    this.limits = limits;
    this.drawWorld = draw;
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.width = 0;
    this.height = 0;
    this.inset = 0; // room left of the world, in pixels
    this.isFit = true;
    this.pending = false;
    this.pointers = new Map();
    this.onPoint = () => {};
    this.onClick = () => {};
    this.frames = 0;
    this.listen();
  }

  resize(height) {
    const ratio = this.ratio || window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = height;
    this.canvas.style.height = height + "px";
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.pixels = ratio;
    if (this.isFit) this.fit(); else this.settle();
    this.request();
  }

  fitScale() {
    const { width, height } = this.limits();
    const across = (this.width - this.inset) / width;
    return this.axes === "x" ? across : Math.min(across, this.height / height);
  }

  fit() {
    this.isFit = true;
    this.scale = this.fitScale();
    this.settle();
    this.request();
  }

  // Keep the world in sight.
  settle() {
    const { width, height } = this.limits();
    const least = this.fitScale();
    this.scale = clamp(this.scale, least, least * 4000);
    const keep = (value, room, extent) => (extent * this.scale <= room ? (extent * this.scale - room) / 2 / this.scale : clamp(value, 0, extent - room / this.scale));
    this.x = keep(this.x, this.width - this.inset, width);
    if (this.axes === "xy") this.y = keep(this.y, this.height, height);
    this.isFit = this.scale <= least * 1.0001;
  }

  zoom(factor, atX, atY) {
    const px = (atX === undefined ? (this.width + this.inset) / 2 : atX) - this.inset;
    const py = atY === undefined ? this.height / 2 : atY;
    const before = this.scale;
    const least = this.fitScale();
    this.scale = clamp(this.scale * factor, least, least * 4000);
    this.x += px / before - px / this.scale;
    if (this.axes === "xy") this.y += py / before - py / this.scale;
    this.settle();
    this.request();
  }

  pan(dx, dy) {
    this.x -= dx / this.scale;
    if (this.axes === "xy") this.y -= dy / this.scale;
    this.settle();
    this.request();
  }

  centre(x, y, scale) {
    if (scale !== undefined) this.scale = scale;
    this.x = x - (this.width - this.inset) / 2 / this.scale;
    if (this.axes === "xy") this.y = y - this.height / 2 / this.scale;
    this.settle();
    this.request();
  }

  request() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    this.pending = false;
    if (this.width === 0) return;
    this.context.setTransform(this.pixels, 0, 0, this.pixels, 0, 0);
    this.context.clearRect(0, 0, this.width, this.height);
    this.drawWorld(this.context);
    this.frames += 1;
  }

  listen() {
    const canvas = this.canvas;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("wheel", (event) => {
      const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (!(event.ctrlKey || event.metaKey) && !sideways) return; // the page scrolls
      event.preventDefault();
      if (sideways && !event.ctrlKey) this.pan(-(event.deltaX || event.deltaY), 0);
      else this.zoom(Math.exp(-clamp(event.deltaY, -120, 120) * 0.004), ...at(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      this.pointers.set(event.pointerId, at(event));
      this.travel = 0;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = at(event);
      const before = this.pointers.get(event.pointerId);
      if (before === undefined) { this.onPoint(now, event); return; }
      if (this.pointers.size === 2) this.pinch(event.pointerId, now);
      else {
        this.travel += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
        if (this.travel > 3) canvas.classList.add("dragging");
        this.pan(now[0] - before[0], now[1] - before[1]);
      }
      this.pointers.set(event.pointerId, now);
    });
    const end = (event) => {
      const was = this.pointers.delete(event.pointerId);
      canvas.classList.remove("dragging");
      if (was && event.type === "pointerup" && this.travel <= 3) this.onClick(at(event), event);
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => this.onPoint(null));
    canvas.addEventListener("dblclick", (event) => this.zoom(2.5, ...at(event)));
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "+" || event.key === "=") this.zoom(1.5);
      else if (event.key === "-") this.zoom(1 / 1.5);
      else if (event.key === "0") this.fit();
      else if (event.shiftKey && event.key === "ArrowLeft") this.pan(80, 0);
      else if (event.shiftKey && event.key === "ArrowRight") this.pan(-80, 0);
      else return;
      event.preventDefault();
      event.stopImmediatePropagation();
    });
  }

  pinch(id, now) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, place]) => place);
    const before = this.pointers.get(id);
    const length = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
    this.travel = 99;
    this.zoom(length(now, other) / length(before, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }
}
