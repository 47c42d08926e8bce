// What the pointer is on, what is chosen, and which kind or device is brought out; pictures listen.

const selection = {
  hover: null,
  chosen: null,
  lit: null, // {type: "kind" | "device" | "find", ...}
  showsChain: false,
  listeners: [],

  listen(listener) { this.listeners.push(listener); },
  tell(what) { for (const listener of this.listeners) listener(what); },

  setHover(item) {
    if (item === this.hover) return;
    this.hover = item;
    this.tell("hover");
  },
  choose(item) {
    this.chosen = item;
    this.tell("chosen");
  },
  light(lit) {
    this.lit = lit;
    this.tell("lit");
  },

  // Whether an item keeps its full colour.
  isLit(item) {
    const lit = this.lit;
    const index = +item.slice(1);
    if (this.showsChain && !lastTimeline.chain.has(item)) return false;
    if (lit === null) return true;
    if (item[0] === "c") return lit.type === "copy" || (lit.type === "find" && nameOf(item).toLowerCase().includes(lit.text));
    const operator = operators[index];
    if (lit.type === "kind") return operator.kind === lit.kind;
    if (lit.type === "device") return operator.device === lit.device;
    if (lit.type === "find") return (operator.name + " " + operator.kind).toLowerCase().includes(lit.text);
    return false;
  },
};
