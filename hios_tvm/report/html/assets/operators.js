// Every operator as a table, made when it is asked for.

const operatorTable = {
  columns: [
    ["operator", (index) => operators[index].name],
    ["kind", (index) => operators[index].kind],
    ["device", (index) => report.devices[operators[index].device].name],
    ["stream", (index) => operators[index].stream],
    ["stage", (index) => operators[index].stage ?? "–"],
    ["start", (index) => operatorTable.event(index)?.start ?? 0],
    ["time", (index) => { const event = operatorTable.event(index); return event === undefined ? 0 : event.end - event.start; }],
  ],
  event(index) { return lastTimeline.ofItem.get("o" + index); },

  start() {
    byId("operators").addEventListener("toggle", () => { if (byId("operators").open && !this.made) this.fill(5, 1); });
  },

  fill(column, direction) {
    this.made = true;
    const value = this.columns[column][1];
    const order = operators.map((_, index) => index).sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      return (x < y ? -1 : x > y ? 1 : a - b) * direction;
    });
    const head = make("tr", {});
    this.columns.forEach(([name], at) => {
      const button = make("button", { type: "button", class: "goto" }, name);
      button.addEventListener("click", () => this.fill(at, at === column ? -direction : 1));
      head.append(make("th", { scope: "col", "aria-sort": at === column ? (direction > 0 ? "ascending" : "descending") : null }, button));
    });
    const rows = order.map((index) => make("tr", {},
      make("th", { scope: "row" }, make("button", { type: "button", class: "goto", "data-op": index }, operators[index].name)),
      ...this.columns.slice(1).map(([name, get]) => make("td", {}, name === "start" || name === "time" ? formatTime(get(index)) : String(get(index))))));
    byId("operators-body").replaceChildren(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "All operators" },
      make("table", {}, make("caption", { class: "unseen" }, "All operators, times " + lastTimeline.origin), make("thead", {}, head), make("tbody", {}, ...rows))));
  },
};
