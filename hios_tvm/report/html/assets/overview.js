// The whole graph in little below its picture, with a frame around what is in sight.

const overview = {
  start(view) {
    this.view = view;
    this.canvas = byId("graph-overview");
    this.context = this.canvas.getContext("2d");
    const move = (event) => {
      if (event.buttons === 0) return;
      const box = this.canvas.getBoundingClientRect();
      view.centre((event.clientX - box.left) / this.scale, (event.clientY - box.top - this.top) / this.scale);
    };
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); move(event); });
    this.canvas.addEventListener("pointermove", move);
  },

  resize(width, extent) {
    this.scale = Math.min(width / extent.width, 64 / extent.height);
    this.height = Math.max(18, Math.ceil(extent.height * this.scale));
    this.top = (this.height - extent.height * this.scale) / 2;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.style.height = this.height + "px";
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.ratio = ratio;
    this.stale = true;
  },

  // The dots are drawn once for each colouring; only the frame moves.
  draw() {
    const key = graphView.mode + theme.isDark + JSON.stringify(selection.lit) + selection.showsChain;
    if (this.stale || key !== this.key) {
      this.dots = document.createElement("canvas");
      this.dots.width = this.canvas.width;
      this.dots.height = this.canvas.height;
      const context = this.dots.getContext("2d");
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, this.top * this.ratio);
      const [width, height] = [Math.max(1.5, NODE_W * this.scale), Math.max(1.5, NODE_H * this.scale)];
      operators.forEach((operator, index) => {
        const [x, y] = graphView.nodes[index];
        const colour = colourFor(graphView.mode, operator);
        context.fillStyle = selection.isLit("o" + index) ? colour : cachedMix(colour, theme.fade, 0.16);
        context.fillRect(x * this.scale - width / 2, y * this.scale - height / 2, width, height);
      });
      this.key = key;
      this.stale = false;
    }
    const { context, view } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.dots, 0, 0);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    const left = clamp(view.x * this.scale, 0, this.canvas.width);
    const right = (view.x + view.width / view.scale) * this.scale;
    const top = Math.max(0.75, this.top + view.y * this.scale);
    const bottom = Math.min(this.height - 0.75, this.top + (view.y + view.height / view.scale) * this.scale);
    context.strokeStyle = theme.colours.accent;
    context.lineWidth = 1.5;
    context.strokeRect(left + 0.75, top, Math.max(4, right - left - 1.5), bottom - top);
  },
};
