// What is known of one operator or copy: a tooltip at the pointer, a panel for the chosen one.

const inspector = {
  start() {
    byId("inspector-close").addEventListener("click", () => selection.choose(null));
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") selection.choose(null); });
    document.addEventListener("click", (event) => {
      const found = event.target.closest ? event.target.closest("[data-op], [data-copy]") : null;
      if (found === null) return;
      const item = found.dataset.op !== undefined ? "o" + found.dataset.op : "c" + found.dataset.copy;
      selection.choose(item);
      timelineView.reveal(item);
      graphView.reveal(item, true);
    });
    document.addEventListener("pointerover", (event) => {
      const found = event.target.closest ? event.target.closest("circle[data-op]") : null;
      if (found !== null) selection.setHover("o" + found.dataset.op);
    });
    selection.listen((what) => {
      if (what === "chosen") this.show(selection.chosen);
      if (what === "hover" || what === "chosen") {
        for (const circle of document.querySelectorAll("circle.lit")) circle.classList.remove("lit");
        for (const item of [selection.hover, selection.chosen]) {
          if (item !== null && item[0] === "o") document.querySelector('circle[data-op="' + item.slice(1) + '"]')?.classList.add("lit");
        }
      }
    });
  },

  times(item) {
    return timelines.map((one) => {
      const event = one.ofItem.get(item);
      return event === undefined ? null : [one.origin, formatTime(event.end - event.start), event];
    }).filter((row) => row !== null);
  },

  tooltip(item, event) {
    const box = byId("tooltip");
    if (item === null || !event || event.pointerType === "touch") { box.hidden = true; return; }
    if (box.dataset.item !== item || box.hidden) {
      box.dataset.item = item;
      const index = +item.slice(1);
      const what = item[0] === "o" ? operators[index].kind : [copies[index].shape, copies[index].size_bytes ? formatBytes(copies[index].size_bytes) : ""].filter(Boolean).join(", ");
      box.replaceChildren(
        make("strong", {}, nameOf(item)),
        make("span", {}, [what, placeOf(item)].filter(Boolean).join(" · ")),
        make("span", {}, this.times(item).map(([origin, time]) => origin + " " + time).join(" · ")),
      );
      box.hidden = false;
      this.size = [box.offsetWidth, box.offsetHeight];
    }
    const [width, height] = this.size;
    box.style.left = clamp(event.clientX + 14, 6, window.innerWidth - width - 6) + "px";
    box.style.top = (event.clientY + height + 26 > window.innerHeight ? event.clientY - height - 14 : event.clientY + 18) + "px";
  },

  facts(item) {
    const index = +item.slice(1);
    const rows = [["where", placeOf(item)]];
    for (const [origin, time, event] of this.times(item)) rows.push([origin, time + ", from " + formatTime(event.start) + " to " + formatTime(event.end)]);
    if (item[0] === "c") {
      const copy = copies[index];
      if (copy.shape) rows.push(["tensor", copy.shape]);
      if (copy.size_bytes) rows.push(["size", formatBytes(copy.size_bytes)]);
      return rows;
    }
    const operator = operators[index];
    rows.unshift(["kind", operator.kind]);
    rows.push(["alone", formatTime(operator.solo_us) + (operator.low_us === undefined ? "" : " (" + formatTime(operator.low_us) + " – " + formatTime(operator.high_us) + ")")]);
    if (operator.shape) rows.push(["output", operator.shape]);
    if (operator.flops) rows.push(["work", formatWork(operator.flops) + (operator.solo_us > 0 ? ", " + (operator.flops / operator.solo_us / 1e3).toFixed(1) + " GFLOP/s" : "")]);
    if (operator.moved_bytes) rows.push(["read and written", formatBytes(operator.moved_bytes)]);
    if (operator.kernel) rows.push(["kernel", operator.kernel]);
    return rows;
  },

  show(item) {
    const box = byId("inspector");
    box.hidden = item === null;
    if (item === null) return;
    const facts = this.facts(item);
    const body = byId("inspector-body");
    body.replaceChildren(make("h3", {}, nameOf(item)), make("dl", {}, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))));
    for (const [label, isSource] of [["after", true], ["before", false]]) {
      const near = timelineView.related(item).filter(([, comesBefore]) => comesBefore === isSource).map(([other]) => other);
      if (near.length === 0) continue;
      const line = make("p", {}, label + " ");
      near.forEach((other, at) => {
        const kind = other[0] === "o" ? "data-op" : "data-copy";
        line.append(at > 0 ? ", " : "", make("button", { type: "button", class: "goto", [kind]: other.slice(1) }, nameOf(other)));
      });
      body.append(line);
    }
    byId("announce").textContent = nameOf(item) + ": " + facts.map((row) => row.join(" ")).join("; ");
  },
};
